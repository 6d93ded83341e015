"""Whether a struck run has lost anything: it is run to its end and compared with runs that are never struck."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.campaign.edges import Strike
from benchmarks.campaign.room import Room
from benchmarks.campaign.striker import Striker, damage_newest
from benchmarks.campaign.trials import STAGES, Trial
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.workers.telemetry.machine import is_alive

TOLERANCE, REPLAYS, MOST_ATTEMPTS = 0.05, 3, 4
TIMEOUT_S = 120.0
GONE_S = 10.0
"""How long the ranks of a launcher that was killed may take to end."""
ROOT = Path(__file__).resolve().parents[2]

Reference = Callable[[Trial], tuple[dict[str, Tensor], float]]
"""Parameters and least accuracy of runs like a trial's that are never struck."""


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


@dataclass(frozen=True)
class Attempts:
    """All attempts of one run: the last one's outcome, every one's exit codes, and when the first one had ended."""

    outcome: Outcome
    exit_codes: list[list[int | None]]
    first_ended_s: float
    struck_s: float | None
    again_s: float | None


def run_trial(trial: Trial, run: Sequence[str], folder: Path, images: Path, reference: Reference) -> Result:
    """Runs one trial to its end.

    Args:
        images: See `Trial.data`.
    """
    settings = [*run, *trial.data(images), *trial.links, *trial.slowness, f"faults.policy={trial.recovery}"]
    with Room(trial, folder) as room:
        return _run_in(room, trial, settings, reference)


def _run_in(room: Room, trial: Trial, settings: Sequence[str], reference: Reference) -> Result:
    folder = room.folder
    shared_before = set(os.listdir("/dev/shm"))
    striker = Striker(trial, folder, TIMEOUT_S)
    tried = _try_until_done(trial, settings, room, striker)
    accuracy = tried.outcome.summary["accuracy"]["final"] if not any(tried.exit_codes[-1]) else 0.0
    parameters, expected = reference(trial)
    right = accuracy >= expected - TOLERANCE
    if trial.policy == "fifo" and right:
        found = network_state(folder)
        right = all(torch.equal(found[name], value) for name, value in parameters.items())
    leaked = [str(path.relative_to(folder)) for path in folder.rglob("*.partial")]
    leaked += sorted(set(os.listdir("/dev/shm")) - shared_before)
    return Result(
        trial,
        right,
        len(tried.exit_codes),
        tried.exit_codes,
        tried.outcome.summary.get("began_at_batch_id", 0),
        *_seconds(trial, tried, striker),
        sum(map(is_alive, striker.pids)),
        leaked,
        accuracy,
        expected,
    )


def _try_until_done(trial: Trial, settings: Sequence[str], room: Room, striker: Striker) -> Attempts:
    folder = room.folder
    outcome = _try_first(trial, settings, folder, striker)
    ended_s, codes, again_s = time.time(), [outcome.exit_codes], None
    striker.join()
    room.widen()
    struck_s = striker.struck_s or _raised_at(outcome, trial)
    while any(codes[-1]) and len(codes) < MOST_ATTEMPTS:
        if trial.damages and trial.recovery == "restart" and len(codes) == 1:
            damage_newest(folder, trial)
        started_s = time.time()
        outcome = run_pipeline(settings, STAGES, folder, TIMEOUT_S, goes_on=True)
        again_s = again_s or _first_record_after(folder, started_s)
        codes.append(outcome.exit_codes)
    return Attempts(outcome, codes, ended_s, struck_s, again_s)


def _try_first(trial: Trial, settings: Sequence[str], folder: Path, striker: Striker) -> Outcome:
    """The attempt that is struck."""
    overrides = [*settings, *trial.overrides]
    if trial.fault == "killed launcher":
        return _try_under_launcher(overrides, folder, striker)
    enter = Strike(trial.point, trial.stage, folder.with_suffix(".struck")) if trial.point else None
    return run_pipeline(overrides, STAGES, folder, TIMEOUT_S, enter=enter)


def _try_under_launcher(overrides: Sequence[str], folder: Path, striker: Striker) -> Outcome:
    """As `run_pipeline`, by a process of its own."""
    place = [f"run.folder={folder.parent}", f"run.name={folder.name}"]
    command = [sys.executable, str(ROOT / "launch" / "train.py"), "--stages", str(STAGES), *overrides, *place]
    striker.launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    code = striker.launcher.wait(TIMEOUT_S)
    deadline = time.monotonic() + GONE_S
    while any(is_alive(pid) for pid in striker.pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return Outcome([code] * STAGES, [], folder)


def _seconds(trial: Trial, tried: Attempts, striker: Striker) -> tuple[float | None, float | None]:
    """To find out, and to train again."""
    stages = tried.outcome.summary.get("stages", [])
    struck = stages[trial.stage] if stages else {}
    if struck.get("restarts"):
        back_s = struck["began_unix_s"]
        # When a scripted fault struck is not on record: what the stage had recorded since the mark has been dropped.
        detect_s = back_s - striker.struck_s if striker.struck_s else None
        return detect_s, _first_record_after(tried.outcome.folder, back_s, trial.stage)
    detect_s = tried.first_ended_s - tried.struck_s if tried.struck_s and any(tried.exit_codes[0]) else None
    return detect_s, tried.again_s


def _raised_at(outcome: Outcome, trial: Trial) -> float | None:
    """When the record before a scripted exception was written."""
    if trial.fault != "exception":
        return None
    times = [one.unix_s for one in outcome.records(trial.stage) if one.step <= trial.step]
    return times[-1] if times else None


def _first_record_after(folder: Path, started_s: float, stage: int | None = None) -> float | None:
    times = [
        json.loads(line).get("unix_s", 0.0)
        for path in (folder / "metrics").glob(f"stage{'*' if stage is None else stage}.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    later = [clock - started_s for clock in times if clock > started_s]
    return min(later) if later else None


def make_reference(run: Sequence[str], folder: Path, images: Path, trials: Sequence[Trial]) -> Reference:
    """Parameters and lowest accuracy of runs that are never struck."""
    found: dict[tuple[str, ...], tuple[dict[str, Tensor], float]] = {}
    for settings in {_settings(trial, images) for trial in trials}:
        outcomes = [
            run_pipeline([*run, *settings], STAGES, folder / f"never-{len(found)}-{number}", TIMEOUT_S)
            for number in range(REPLAYS if "buffers.policy=replay" in settings else 1)
        ]
        for outcome in outcomes:
            if any(outcome.exit_codes):
                raise RuntimeError("a run that is never struck failed:\n" + "\n".join(outcome.printed))
        lowest = min(outcome.summary["accuracy"]["final"] for outcome in outcomes)
        found[settings] = network_state(outcomes[0].folder), lowest
    return lambda trial: found[_settings(trial, images)]


def _settings(trial: Trial, images: Path) -> tuple[str, ...]:
    # With FIFO a slow stage changes no parameter.
    slowness = trial.slowness if trial.policy == "replay" else []
    return *trial.data(images), *trial.links, *slowness
