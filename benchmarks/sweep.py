"""Runs a grid of settings, one after another or as jobs on a Ray cluster, and writes one table.

    python -m benchmarks.sweep configs/digits.yaml optimizer.lr=0.02,0.05,0.1 buffers.policy=fifo,replay --out runs/sweep
    python -m benchmarks.sweep ... --jobs http://HEAD:8265 --at-once 4

Every key takes one value or several, separated by commas; lists keep their brackets: placement.replicas=1,[1,2,1]. Each
run has a folder below --out, where what has been run already is not run again; a run that fails is a line that says why.
"""

import argparse
import itertools
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan, natural_processes

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 1.0
SUMMARY = "summary.json"


class Launcher(Protocol):
    """Runs some settings in some folders; returns when all have ended."""

    def run(self, runs: dict[Path, list[str]]) -> None: ...


def grid(settings: Sequence[str]) -> list[list[str]]:
    """All combinations, in the order in which the keys are given; the last key varies fastest.

    Raises:
        ValueError: Something is not key=value or a key comes twice.
    """
    columns = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals and text):
            raise ValueError(f"got {setting!r}, allowed: section.key=value[,value...]")
        if any(column[0].startswith(f"{key}=") for column in columns):
            raise ValueError(f"{key} comes twice; its values are separated by commas")
        columns.append([f"{key}={value}" for value in re.split(r",(?![^\[]*\])", text)])
    return [list(combination) for combination in itertools.product(*columns)]


def folder_of(out: Path, combination: Sequence[str]) -> Path:
    """A folder with a name that says what was set."""
    return out / (re.sub(r"[^\w.=-]+", "_", ",".join(combination)) or "all-defaults")


class OneAfterAnother:
    """With torchrun, on this machine."""

    def __init__(self, config: str, processes: int) -> None:
        self._config = config
        self._processes = processes

    def run(self, runs: dict[Path, list[str]]) -> None:
        for folder, settings in runs.items():
            processes = self._processes or natural_processes(load_config(self._config, settings))
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                f"--nproc_per_node={processes}",
                "launch/run.py",
                *_arguments(self._config, folder, settings),
            ]
            with (folder.parent / f"{folder.name}.log").open("w", encoding="utf-8") as log:
                subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


class RayJobs:
    """As jobs of a cluster, some at once. The folders must be the same on all of its nodes.

    Args:
        address: Of its dashboard.
    """

    def __init__(self, config: str, processes: int, address: str, at_once: int) -> None:
        from ray.job_submission import JobSubmissionClient

        self._client = JobSubmissionClient(address)
        self._config = config
        self._stages = ["--stages", str(processes)] if processes else []
        self._at_once = at_once

    def run(self, runs: dict[Path, list[str]]) -> None:
        waiting, running = list(runs.items()), {}
        while waiting or running:
            while waiting and len(running) < self._at_once:
                folder, settings = waiting.pop(0)
                running[self._submit(folder, settings)] = folder
            time.sleep(POLL_S)
            for job in [job for job in running if self._client.get_job_status(job).is_terminal()]:
                folder = running.pop(job)
                (folder.parent / f"{folder.name}.log").write_text(self._client.get_job_logs(job), encoding="utf-8")

    def _submit(self, folder: Path, settings: list[str]) -> str:
        words = ["python", "launch/ray_run.py", *self._stages, *_arguments(self._config, folder, settings)]
        return self._client.submit_job(entrypoint=shlex.join(words), runtime_env={"working_dir": str(ROOT)})


def _arguments(config: str, folder: Path, settings: list[str]) -> list[str]:
    return ["--config", config, *settings, f"run.folder={folder.parent.absolute()}", f"run.name={folder.name}"]


def results(runs: dict[Path, list[str]]) -> Iterator[dict[str, Any]]:
    """What each run came to, as far as it did."""
    for folder, settings in runs.items():
        row: dict[str, Any] = {"settings": settings, "folder": str(folder), "status": "no summary", "cause": ""}
        if (folder / SUMMARY).exists():
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            row |= {key: summary.get(key, "") for key in ("status", "cause", "samples_per_s", "wall_s", "accuracy")}
        else:
            log = folder.parent / f"{folder.name}.log"
            said = (
                [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("greedypipe: ")]
                if log.exists()
                else []
            )
            row["cause"] = said[0].removeprefix("greedypipe: ") if said else f"see {log}"
        yield row


def table(rows: Sequence[dict[str, Any]], swept: Sequence[str]) -> Table:
    """One line per run; `swept` are the keys with several values."""
    shown = Table(*swept, "accuracy in %", "ensemble", "samples/s", "seconds", "status")
    for row in rows:
        values = dict(setting.split("=", 1) for setting in row["settings"])
        accuracy = row.get("accuracy") or {}
        numbers = [f"{100 * accuracy[key]:.2f}" if accuracy.get(key) is not None else "" for key in ("final", "ensemble")]
        numbers += [f"{row[key]:,.0f}" if row.get(key) else "" for key in ("samples_per_s", "wall_s")]
        cause = f": {row['cause']}" if row["cause"] else ""
        shown.add_row(*(values[key] for key in swept), *numbers, f"{row['status']}{cause}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file")
    parser.add_argument("settings", nargs="*", metavar="section.key=a,b,c")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, of sweep.json and of their logs")
    parser.add_argument("--processes", type=int, default=0, help="of each run (default: one per block)")
    parser.add_argument("--jobs", metavar="ADDRESS", help="run as Ray jobs: address of the dashboard, http://HEAD:8265")
    parser.add_argument("--at-once", type=int, default=2, help="jobs at the same time (default: 2)")
    arguments = parser.parse_intermixed_args()
    try:
        combinations = grid(arguments.settings)
        for combination in combinations:
            config = load_config(arguments.config, combination)
            make_plan(config, arguments.processes or natural_processes(config))
    except (ConfigError, ValueError) as error:
        sys.exit("\n".join(f"greedypipe: {line}" for line in str(error).splitlines()))
    runs = {folder_of(arguments.out, combination): combination for combination in combinations}
    arguments.out.mkdir(parents=True, exist_ok=True)
    launcher: Launcher = (
        RayJobs(arguments.config, arguments.processes, arguments.jobs, arguments.at_once)
        if arguments.jobs
        else OneAfterAnother(arguments.config, arguments.processes)
    )
    launcher.run({folder: settings for folder, settings in runs.items() if not (folder / SUMMARY).exists()})
    rows = list(results(runs))
    swept = [
        setting.partition("=")[0]
        for column, setting in enumerate(combinations[0])
        if len({combination[column] for combination in combinations}) > 1
    ]
    Console(width=None if sys.stdout.isatty() else 150).print(table(rows, swept))
    answer = {"command": "python -m benchmarks.sweep " + " ".join(sys.argv[1:]), "runs": rows}
    (arguments.out / "sweep.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
