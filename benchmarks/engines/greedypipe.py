"""This project's own runs, as a user starts them."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.timing import TIMEOUT_S, Case, EngineError
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.launch.on_host.rehearsal import AHEAD_STEPS


@dataclass(frozen=True)
class Ran:
    """What one run gave: every stage's samples per second after the warm-up, and the stages of its summary."""

    stage_samples_per_s: list[float]
    stages: list[dict[str, Any]]

    @property
    def samples_per_s(self) -> float:
        """The slowest stage's: what the pipeline can keep up."""
        return min(self.stage_samples_per_s)


def run(case: Case, num_processes: int, *overrides: str, enter: Callable[[int], None] | None = None) -> Ran:
    """Trains without an evaluation between, and reads the rates from the stages' records.

    All stages train for at least `case.steps` steps while the clock runs (see Outcome.steady_samples_per_s): the run is
    longer by what the first stage can be ahead of the last.

    Args:
        enter: See launch.on_host.local_run.run_pipeline.

    Raises:
        EngineError: The run failed.
    """
    steps = steps_of(case, num_processes)
    settings = [*case.overrides, *overrides, *_length(case, steps), f"logging.interval_steps={max(2, case.steps // 8)}"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(settings, num_processes, Path(folder) / "run", TIMEOUT_S, enter=enter)
        if any(outcome.exit_codes):
            raise EngineError(" ".join(" ".join(outcome.printed).split())[-300:])
        return Ran(outcome.steady_samples_per_s(case.batch_size, case.warmup_steps), outcome.summary["stages"])


def steps_of(case: Case, num_processes: int) -> int:
    """Batches that `run` trains on."""
    return case.warmup_steps + case.steps + AHEAD_STEPS * (num_processes - 1)


def _length(case: Case, steps: int) -> list[str]:
    """Settings for at least so many steps: one epoch of synthetic data, or as many as it takes."""
    if "data.name=synthetic" in case.overrides:
        length, epochs = [f"data.samples={steps * case.batch_size}"], 1
    else:
        length, epochs = [], math.ceil(steps / case.plan(1).blueprint.steps_per_epoch)
    return [*length, f"training.epochs={epochs}", f"evaluation.every_epochs={epochs}"]
