"""Whether a struck run has lost anything: it is run to its end and compared with runs that are never struck."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.campaign.striker import Striker, truncate_newest
from benchmarks.campaign.trials import STAGES, Trial
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.launch.on_host.outcome import Outcome

TOLERANCE, REPLAYS, MOST_ATTEMPTS = 0.05, 3, 4
TIMEOUT_S = 120.0

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


def run_trial(trial: Trial, run: Sequence[str], folder: Path, reference: Reference) -> Result:
    """Runs one trial to its end."""
    settings = [*run, *trial.links, *trial.slowness, f"faults.policy={trial.recovery}"]
    shared_before = set(os.listdir("/dev/shm"))
    striker = Striker(trial, folder, TIMEOUT_S)
    tried = _try_until_done(trial, settings, folder, striker)
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
        sum(Path(f"/proc/{pid}").exists() for pid in striker.pids),
        leaked,
        accuracy,
        expected,
    )


def _try_until_done(trial: Trial, settings: Sequence[str], folder: Path, striker: Striker) -> Attempts:
    outcome = run_pipeline([*settings, *trial.overrides], STAGES, folder, TIMEOUT_S)
    ended_s, codes, again_s = time.time(), [outcome.exit_codes], None
    striker.join()
    struck_s = striker.struck_s or _raised_at(outcome, trial)
    while any(codes[-1]) and len(codes) < MOST_ATTEMPTS:
        if trial.fault == "truncated checkpoint" and trial.recovery == "restart" and len(codes) == 1:
            truncate_newest(folder)
        started_s = time.time()
        outcome = run_pipeline(settings, STAGES, folder, TIMEOUT_S, goes_on=True)
        again_s = again_s or _first_record_after(folder, started_s)
        codes.append(outcome.exit_codes)
    return Attempts(outcome, codes, ended_s, struck_s, again_s)


def _seconds(trial: Trial, tried: Attempts, striker: Striker) -> tuple[float | None, float | None]:
    """To find out, and to train again."""
    struck = tried.outcome.summary.get("stages", [{}] * STAGES)[trial.stage]
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
