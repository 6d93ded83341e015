"""A campaign of faults: runs that are struck at random moments in random stages, go on, and must lose nothing.

    python -m benchmarks.faults --count 100 --seed 0 --out benchmarks/results/faults [--smoke]

Every trial draws a policy of links and one of faults, a fault, a stage and a moment. A run that ends is started again in its
folder, as torchrun and --resume auto would, until it ends by itself; with faults.policy=isolate the struck stage comes back
alone. With FIFO its parameters must then equal those of a run that was never struck, bit for bit; with replay its accuracy
must be within TOLERANCE of the lowest of REPLAYS such runs, slowed alike where the fault is a slow stage or link. Detection
is counted from the strike to the end of all processes (restart), or to the start of the stage's next process (isolate);
"training again" from then to the struck stage's next training record (processes come from a fork server: without the
seconds in which Python and torch are imported).
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from greedypipe.launch.checkpoints.manifest import complete_folders
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host.local_run import FORKSERVER_PRELOAD, run_pipeline
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.reporting.status_file import read_status
from greedypipe.workers.telemetry.machine import hardware, versions

STAGES = 3
TOLERANCE, REPLAYS = 0.05, 3
TIMEOUT_S = 120.0
RUN = (
    "data.name=digits",
    "data.batch_size=72",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.1",
    "partition.blocks=3",
    "training.epochs=12",
    "evaluation.every_epochs=12",
    "optimizer.lr=0.05",
    "optimizer.schedule=cosine",
    "checkpoint.interval_steps=12",
    "logging.interval_steps=1",
    "faults.heartbeat_timeout_s=3",
    "faults.timeout_s=20",
)
"""12 epochs of 19 steps."""
MOST_READS = 5
"""With replay: without a bound the stages behind one that stands still use up their budgets on its last few batches. Where
one is slow for the whole run they would use them up so in any case: runs of that kind differ by 14 points among
themselves, and a loss could not be told from it. So there each batch is read once."""
FAULTS = (
    "kill -9",
    "SIGSTOP, SIGCONT",
    "SIGTERM",
    "exception",
    "full disk",
    "truncated checkpoint",
    "slow stage",
    "slow link",
)
FATAL = {"kill -9", "SIGTERM", "exception", "truncated checkpoint"}
SCRIPTED = {"exception": "raise", "full disk": "full_disk"}


Reference = Callable[["Trial"], tuple[dict[str, Tensor], float]]
"""Parameters and least accuracy of runs like a trial's that are never struck."""


@dataclass(frozen=True)
class Trial:
    """What is done to one run: `step` counts in the stage that is struck."""

    policy: str
    recovery: str
    fault: str
    stage: int
    step: int

    @property
    def overrides(self) -> list[str]:
        """Of the first attempt."""
        if self.fault in SCRIPTED:
            kind = SCRIPTED[self.fault]
            return [f"debug.fault={kind}", f"debug.fault_stage={self.stage}", f"debug.fault_step={self.step}"]
        return self.slowness

    @property
    def links(self) -> tuple[str, ...]:
        """Of every attempt, and of the runs that it is compared with."""
        if self.policy == "fifo":
            return ("buffers.policy=fifo",)
        return "buffers.policy=replay", f"buffers.max_reuse={1 if self.slowness else MOST_READS}"

    @property
    def slowness(self) -> list[str]:
        """Of every attempt, and of the runs that it is compared with."""
        if self.fault == "slow stage":
            return [f"debug.slow_stage={self.stage}", "debug.slow_factor=3"]
        return [f"debug.slow_stage={self.stage}", "debug.slow_link_s=0.02"] if self.fault == "slow link" else []


@dataclass(frozen=True)
class Result:
    """How a trial ended; seconds are None where nothing had to be found out or begun again."""

    trial: Trial
    is_right: bool
    attempts: int
    exit_codes: list[list[int | None]]
    began_at: int
    detect_s: float | None
    again_s: float | None
    orphans: int
    leaked: list[str]
    accuracy: float
    expected: float
    """Accuracy of the run that was never struck; with replay the lowest of them."""


def run_trial(trial: Trial, run: Sequence[str], folder: Path, reference: Reference) -> Result:
    """Runs one trial to its end."""
    settings = [*run, *trial.links, *trial.slowness, f"faults.policy={trial.recovery}"]
    shared_before = set(os.listdir("/dev/shm"))
    striker = Striker(trial, folder)
    outcome = run_pipeline([*settings, *trial.overrides], STAGES, folder, TIMEOUT_S)
    ended_s, codes, again_s = time.time(), [outcome.exit_codes], None
    striker.join()
    struck_s = striker.struck_s or _raised_at(outcome, trial)
    while any(codes[-1]) and len(codes) < 4:
        if trial.fault == "truncated checkpoint" and trial.recovery == "restart" and len(codes) == 1:
            _truncate_newest(folder)
        started_s = time.time()
        outcome = run_pipeline(settings, STAGES, folder, TIMEOUT_S, goes_on=True)
        again_s = again_s or _first_record_after(folder, started_s)
        codes.append(outcome.exit_codes)
    accuracy = outcome.summary["accuracy"]["final"] if not any(codes[-1]) else 0.0
    parameters, expected = reference(trial)
    right = accuracy >= expected - TOLERANCE
    if trial.policy == "fifo" and right:
        found = network_state(folder)
        right = all(torch.equal(found[name], value) for name, value in parameters.items())
    leaked = [str(path.relative_to(folder)) for path in folder.rglob("*.partial")]
    leaked += sorted(set(os.listdir("/dev/shm")) - shared_before)
    detect_s = ended_s - struck_s if struck_s and any(codes[0]) else None
    struck = outcome.summary.get("stages", [{}] * STAGES)[trial.stage]
    if struck.get("restarts"):
        back_s = struck["began_unix_s"]
        # When a scripted fault struck is not on record: what the stage had recorded since the mark has been dropped.
        detect_s = back_s - striker.struck_s if striker.struck_s else None
        again_s = _first_record_after(folder, back_s, trial.stage)
    orphans = sum(Path(f"/proc/{pid}").exists() for pid in striker.pids)
    return Result(
        trial,
        right,
        len(codes),
        codes,
        outcome.summary.get("began_at_batch_id", 0),
        detect_s,
        again_s,
        orphans,
        leaked,
        accuracy,
        expected,
    )


class Striker:
    """Waits in a thread until a stage has come to its step, and strikes it from outside."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self._trial = trial
        self._folder = folder
        self.pids: list[int] = []
        self.struck_s: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(1)

    def _run(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        metrics = self._folder / "metrics" / f"stage{self._trial.stage}.jsonl"
        while time.monotonic() < deadline:
            if metrics.exists() and (self._folder / "status.json").exists():
                rows = read_status(self._folder).stages
                self.pids = [row.pid for row in rows if row]
                if all(rows) and metrics.read_text().count("\n") >= self._trial.step:
                    break
            time.sleep(0.005)
        if self._trial.fault not in SCRIPTED and not self._trial.slowness and self.pids:
            self._strike(self.pids[self._trial.stage])

    def _strike(self, pid: int) -> None:
        self.struck_s = time.time()
        try:
            if self._trial.fault.startswith("SIGSTOP"):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(1)
                os.kill(pid, signal.SIGCONT)
            else:
                if self._trial.fault == "truncated checkpoint" and self._trial.recovery == "isolate":
                    _truncate_newest(self._folder)
                os.kill(pid, signal.SIGTERM if self._trial.fault == "SIGTERM" else signal.SIGKILL)
        except ProcessLookupError:
            self.struck_s = None


def _raised_at(outcome: Outcome, trial: Trial) -> float | None:
    """When the record before a scripted exception was written."""
    if trial.fault != "exception":
        return None
    times = [one.unix_s for one in outcome.records(trial.stage) if one.step <= trial.step]
    return times[-1] if times else None


def _truncate_newest(folder: Path) -> None:
    newest = complete_folders(folder)[:1]
    for checkpoint in newest:
        file = checkpoint / "block1.pt"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _first_record_after(folder: Path, started_s: float, stage: int | None = None) -> float | None:
    times = [
        json.loads(line).get("unix_s", 0.0)
        for path in (folder / "metrics").glob(f"stage{'*' if stage is None else stage}.jsonl")
        for line in path.read_text().splitlines()
    ]
    later = [clock - started_s for clock in times if clock > started_s]
    return min(later) if later else None


def draw(count: int, seed: int, last_step: int, recoveries: Sequence[str]) -> list[Trial]:
    """Every fault about as often as every other, at random moments in random stages."""
    generator = random.Random(seed)
    return [
        Trial(
            generator.choice(("fifo", "replay")),
            generator.choice(recoveries),
            FAULTS[number % len(FAULTS)],
            generator.randrange(STAGES),
            generator.randrange(2, last_step),
        )
        for number in range(count)
    ]


def draw_few(seed: int, last_step: int) -> list[Trial]:
    """One of each fault that ends a run, with FIFO links, and one of those with isolation in both policies."""
    drawn = draw(len(FAULTS), seed, last_step, ("restart",))
    few = [replace(trial, policy="fifo") for trial in drawn if trial.fault in FATAL]
    return few + [replace(few[0], recovery="isolate", policy=policy) for policy in ("fifo", "replay")]


def make_reference(run: Sequence[str], folder: Path, trials: Sequence[Trial]) -> Reference:
    """Parameters and lowest accuracy of runs that are never struck."""
    found: dict[tuple[str, ...], tuple[dict[str, Tensor], float]] = {}
    for settings in {_settings(trial) for trial in trials}:
        outcomes = [
            run_pipeline([*run, *settings], STAGES, folder / f"never-{len(found)}-{number}", TIMEOUT_S)
            for number in range(REPLAYS if "buffers.policy=replay" in settings else 1)
        ]
        for outcome in outcomes:
            if any(outcome.exit_codes):
                raise RuntimeError("a run that is never struck failed:\n" + "\n".join(outcome.printed))
        lowest = min(outcome.summary["accuracy"]["final"] for outcome in outcomes)
        found[settings] = network_state(outcomes[0].folder), lowest
    return lambda trial: found[_settings(trial)]


def _settings(trial: Trial) -> tuple[str, ...]:
    # With FIFO a slow stage changes no parameter.
    slowness = trial.slowness if trial.policy == "replay" else []
    return *trial.links, *slowness


def table(results: list[Result]) -> Table:
    """One line per policy and fault."""
    names = ("links", "faults.policy", "fault", "trials", "right", "detected s: p50", "p95", "training again s: p50", "p95")
    shown = Table(*names, "orphans", "leaked")
    kinds = [(one.trial.policy, one.trial.recovery, one.trial.fault) for one in results]
    for kind in sorted(set(kinds)):
        group = [one for one, its_kind in zip(results, kinds, strict=True) if its_kind == kind]
        shown.add_row(
            *kind,
            str(len(group)),
            str(sum(one.is_right for one in group)),
            *_percentiles([one.detect_s for one in group]),
            *_percentiles([one.again_s for one in group]),
            str(sum(one.orphans for one in group)),
            str(sum(len(one.leaked) for one in group)),
        )
    return shown


def _percentiles(values: list[float | None]) -> tuple[str, str]:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "", ""
    return f"{statistics.median(known):.2f}", f"{known[min(len(known) - 1, int(0.95 * len(known)))]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--smoke", action="store_true", help="few trials, on a shorter run")
    parser.add_argument(
        "--policies",
        nargs="+",
        choices=("restart", "isolate"),
        default=["restart", "isolate"],
        help="faults.policy to draw from",
    )
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    # Long enough that a stage is struck in the middle: who strikes learns of the processes half a second after they start.
    run = (*RUN, "training.epochs=8", "evaluation.every_epochs=8") if arguments.smoke else RUN
    seed = arguments.seed
    trials = draw_few(seed, 40) if arguments.smoke else draw(arguments.count, seed, 200, arguments.policies)
    with tempfile.TemporaryDirectory() as folder:
        reference = make_reference(run, Path(folder), trials)
        results = [
            run_trial(trial, run, Path(folder) / f"trial{number}", reference)
            for number, trial in enumerate(track(trials, "trials", console=Console(stderr=True)))
        ]
    Console(width=140).print(table(results), f"{sum(one.is_right for one in results)} of {len(results)} right")
    answer: dict[str, Any] = {
        "command": "python -m benchmarks.faults " + " ".join(sys.argv[1:]),
        "settings": list(run),
        "hardware": hardware(),
        "versions": versions(),
        "right": sum(one.is_right for one in results),
        "trials": [asdict(one) for one in results],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
