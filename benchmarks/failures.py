"""How a run ends when one of its stages does: time, exit code and message, for every stage and kind of failure.

    python -m benchmarks.failures [--stages 4] [--smoke] [--out benchmarks/results/failures.json]

Each case starts a real run under torchrun, waits until every stage has trained some batches, strikes one stage from
outside (kill -9, SIGSTOP) or by a scripted fault, and waits for the end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from greedypipe.workers.telemetry.machine import hardware, versions

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 90.0
HANG_S = 5.0
"""Both deadlines: without a heartbeat (SIGSTOP), and on one batch (hang)."""
ENDLESS = (
    "training.epochs=100000",
    "logging.interval_steps=5",
    f"faults.heartbeat_timeout_s={HANG_S}",
    f"faults.hang_timeout_s={HANG_S}",
)
FAULT_STEP = 60


@dataclass(frozen=True)
class Case:
    """One failure: what is done to which stage."""

    strike: str
    stage: int

    @property
    def overrides(self) -> list[str]:
        """Of the configuration, for faults that a stage commits itself."""
        if self.strike not in ("raise", "nan", "exit", "hang"):
            return []
        return [f"debug.fault={self.strike}", f"debug.fault_stage={self.stage}", f"debug.fault_step={FAULT_STEP}"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `seconds` counts from the strike, for scripted faults from the step at which they are due."""

    strike: str
    stage: int
    seconds: float
    exit_code: int
    message: str
    names_the_stage: bool
    said_once: bool
    orphans: int


def run_case(case: Case, num_stages: int) -> Outcome:
    """Runs one case to its end; kills what is left after DEADLINE_S."""
    with tempfile.TemporaryDirectory() as folder:
        run = LiveRun(case, num_stages, Path(folder))
        try:
            pids = run.wait_until_training()
            struck = _strike(case, run, pids)
            seconds = run.wait(DEADLINE_S) - struck
        finally:
            run.kill()
        orphans = sum(_is_alive(pid) for pid in pids.values())
    said = [line.removeprefix("greedypipe: ") for line in run.lines if line.startswith("greedypipe: ")]
    messages = [line.replace(str(Path(folder) / "run"), "RUN") for line in said]
    message = messages[0] if messages else ""
    named = f"stage {case.stage} " in message or case.strike == "ctrl-c"
    code = run.process.returncode
    return Outcome(case.strike, case.stage, round(seconds, 2), code, message, named, len(messages) == 1, orphans)


def all_cases(num_stages: int) -> list[Case]:
    """kill -9 of each stage in turn, and one stage each for the other kinds."""
    kills = [Case("kill -9", stage) for stage in range(num_stages)]
    middle = num_stages // 2
    return [*kills, *(Case(strike, middle) for strike in ("SIGSTOP", "hang", "raise", "nan", "exit")), Case("ctrl-c", 0)]


class LiveRun:
    """A run under torchrun, in a process group of its own, whose standard error is read as it comes.

    Attributes:
        lines: Of standard error, so far.
    """

    def __init__(self, case: Case, num_stages: int, folder: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc_per_node={num_stages}",
            str(ROOT / "launch" / "run.py"),
            f"run.folder={folder}",
            "run.name=run",
            *ENDLESS,
            *case.overrides,
        ]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            encoding="utf-8",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._metrics = [folder / "run" / "metrics" / f"stage{stage}.jsonl" for stage in range(num_stages)]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_training(self) -> dict[int, int]:
        """Waits until every stage has written two records; returns the processes by rank."""
        self.wait_for(
            lambda: all(path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= 2 for path in self._metrics)
        )
        return {_rank(pid): pid for pid in _children(self.process.pid)}

    def wait_for(self, condition: Callable[[], bool]) -> float:
        """Waits for a condition on a living run; returns when it came true."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the run ended, or hung, before it was struck: " + "\n".join(self.lines))
            time.sleep(0.01)
        return time.monotonic()

    def wait(self, timeout_s: float) -> float:
        """Waits for the end; returns when it came."""
        self.process.wait(timeout_s)
        ended = time.monotonic()
        self._reader.join()
        return ended

    def kill(self) -> None:
        """Ends whatever is left of the launcher."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())


def _strike(case: Case, run: LiveRun, pids: dict[int, int]) -> float:
    if case.overrides:
        return run.wait_for(lambda: any(line.startswith("debug: ") for line in run.lines))
    if case.strike == "ctrl-c":
        os.killpg(run.process.pid, signal.SIGINT)
    else:
        os.kill(pids[case.stage], signal.SIGKILL if case.strike == "kill -9" else signal.SIGSTOP)
    return time.monotonic()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def _rank(pid: int) -> int:
    variables = dict(
        item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0") if "=" in item
    )
    return int(variables["RANK"])


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--smoke", action="store_true", help="one kill, 2 stages")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    num_stages = 2 if arguments.smoke else arguments.stages
    cases = [Case("kill -9", 1)] if arguments.smoke else all_cases(num_stages)
    table = Table(*("strike", "stage", "seconds to exit", "exit code", "orphans", "message"))
    outcomes = []
    for case in cases:
        outcome = run_case(case, num_stages)
        outcomes.append(asdict(outcome))
        table.add_row(
            outcome.strike,
            str(outcome.stage),
            f"{outcome.seconds:.1f}",
            str(outcome.exit_code),
            str(outcome.orphans),
            outcome.message,
        )
    Console(width=160).print(table)
    if arguments.out:
        facts = {
            "command": " ".join(["python -m benchmarks.failures", *sys.argv[1:]]),
            "hardware": hardware(),
            "versions": versions(),
            "hang_s": HANG_S,
            "outcomes": outcomes,
        }
        arguments.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
