"""Whether a long run grows: memory, descriptors and threads of every process, over half an hour of tiny steps.

    python -m benchmarks.endurance --out benchmarks/results/endurance [--minutes 30] [--stages 2] [--smoke]

The run is started as a user starts it, trains steps of about a millisecond with records, evaluations and checkpoints all the
way, and is stopped with SIGTERM at the end, so that it must save itself and exit with 75. Meanwhile every process below
the launcher is looked at every few seconds. A process is compared with itself: the median of the second tenth of the time,
when caches are warm, with that of the last tenth.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.editions.pace import TINY_STEPS
from greedypipe.launch.recovery.exit_codes import REQUEUE
from greedypipe.workers.telemetry.machine import hardware, versions

SETTINGS = (
    *TINY_STEPS,
    "training.epochs=1000000",
    "evaluation.every_epochs=500",
    "checkpoint.interval_steps=20000",
    "logging.interval_steps=100",
)
EXIT_S = 60.0


@dataclass(frozen=True)
class Look:
    """One process at one moment."""

    at_s: float
    pid: int
    role: str
    resident_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Growth:
    """One process: medians early and late."""

    role: str
    looks: int
    resident_bytes: tuple[float, float]
    descriptors: tuple[float, float]
    threads: tuple[float, float]


def look(launcher: int, at_s: float) -> Iterator[Look]:
    """All processes below a launcher, itself included; those that end meanwhile are left out."""
    for pid, parent in _tree(launcher):
        place = Path("/proc") / str(pid)
        try:
            lines = (place / "status").read_text(encoding="utf-8").splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            descriptors = len(list((place / "fd").iterdir()))
            role = _role(pid, parent)
        except OSError:
            continue
        if "VmRSS" in status:
            yield Look(at_s, pid, role, 1024 * int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"]))


def _tree(root: int) -> list[tuple[int, int]]:
    """Processes with their parents; that of the root counts as 0."""
    found, new = [], [(root, 0)]
    while new:
        pid, parent = new.pop()
        found.append((pid, parent))
        for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                new += [(int(child), pid) for child in tasks.read_text(encoding="ascii").split()]
    return found


def _role(pid: int, parent: int) -> str:
    """A process of a fork server has the server's own command line."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    if not parent:
        return "launcher"
    if b"resource_tracker" in command:
        return "resource tracker"
    return "process of the run" if command == Path(f"/proc/{parent}/cmdline").read_bytes() else "fork server"


def growths(looks: list[Look], minutes: float) -> list[Growth]:
    """Of every process that was there early and late."""
    answer, end_s = [], 60 * minutes
    for pid in dict.fromkeys(one.pid for one in looks):
        own = [one for one in looks if one.pid == pid]
        early = [one for one in own if 0.1 * end_s <= one.at_s < 0.2 * end_s]
        late = [one for one in own if one.at_s >= 0.9 * end_s]
        if early and late:
            pairs = [
                (statistics.median(getattr(one, key) for one in early), statistics.median(getattr(one, key) for one in late))
                for key in ("resident_bytes", "descriptors", "threads")
            ]
            answer.append(Growth(own[-1].role, len(own), *pairs))
    return answer


def table(found: list[Growth]) -> Table:
    """One line per process: early -> late."""
    shown = Table("process", "looks", "resident MB", "descriptors", "threads")
    for one in found:
        resident = " -> ".join(f"{value / 1e6:.1f}" for value in one.resident_bytes)
        shown.add_row(one.role, str(one.looks), resident, *(f"{a:g} -> {b:g}" for a, b in (one.descriptors, one.threads)))
    return shown


def endure(minutes: float, stages: int, folder: Path) -> tuple[list[Look], int, int]:
    """Trains and looks; returns what was seen, the exit code, and the steps of the first block. Blocks for `minutes`."""
    command = [sys.executable, "-m", "greedypipe", "train", "--stages", str(stages)]
    command += [f"run.folder={folder.parent}", f"run.name={folder.name}", *SETTINGS]
    looks: list[Look] = []
    with (folder.parent / "printed").open("wb") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        began = time.monotonic()
        while process.poll() is None and (at_s := time.monotonic() - began) < 60 * minutes:
            looks += look(process.pid, at_s)
            time.sleep(min(5.0, minutes))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        code = process.wait(EXIT_S)
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return looks, code, max(row["step"] for row in status["stages"])


def main() -> None:
    arguments = _parse()
    minutes = 0.5 if arguments.smoke else arguments.minutes
    with tempfile.TemporaryDirectory() as place:
        looks, code, steps = endure(minutes, arguments.stages, Path(place) / "run")
        printed = (Path(place) / "printed").read_text(encoding="utf-8", errors="replace")
    found = growths(looks, minutes)
    Console(width=150).print(table(found))
    answer = {
        "command": "python -m benchmarks.endurance " + " ".join(sys.argv[1:]),
        "settings": SETTINGS,
        "hardware": hardware(),
        "versions": versions(),
        "minutes": minutes,
        "steps": steps,
        "exit_code": code,
        "processes": [asdict(one) for one in found],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    if code != REQUEUE or not found:
        sys.exit(f"the run ended with {code}, not {REQUEUE}:\n{printed[-2000:]}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run (default: 30)")
    parser.add_argument("--stages", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--smoke", action="store_true", help="half a minute")
    return parser.parse_args()


if __name__ == "__main__":
    main()
