"""This project's own runs, as a user starts them."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.timing import TIMEOUT_S, Case, EngineError
from launch.local_run import run_pipeline

TAIL_STEPS = 12
"""Steps behind the timed ones: at least as many as a stage can be ahead of the next, so that all of them train while
the clock runs."""


@dataclass(frozen=True)
class Ran:
    """What one run gave: every stage's samples per second after the warm-up, and the stages of its summary."""

    stage_samples_per_s: list[float]
    stages: list[dict[str, Any]]

    @property
    def samples_per_s(self) -> float:
        """The last stage's."""
        return self.stage_samples_per_s[-1]


def run(case: Case, num_processes: int, *overrides: str) -> Ran:
    """Trains warm-up, timed steps and tail without an evaluation between, and reads the rate from the stages' records.

    A rate counts from a stage's first record after the warm-up on.

    Raises:
        EngineError: The run failed.
    """
    steps, interval = case.warmup_steps + case.steps, max(2, case.steps // 4)
    tail = TAIL_STEPS if num_processes > 1 else 0
    settings = [*case.overrides, *overrides, *_length(case, steps + tail), f"logging.interval_steps={interval}"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(settings, num_processes, Path(folder) / "run", TIMEOUT_S)
        if any(outcome.exit_codes):
            raise EngineError(" ".join(" ".join(outcome.printed).split())[-300:])
        rates = [
            outcome.steady_samples_per_s(stage, case.batch_size, case.warmup_steps - interval, steps)
            for stage in range(num_processes)
        ]
        return Ran(rates, outcome.summary["stages"])


def _length(case: Case, steps: int) -> list[str]:
    """Settings for at least so many steps: one epoch of synthetic data, or as many as it takes."""
    if "data.name=synthetic" in case.overrides:
        length, epochs = [f"data.samples={steps * case.batch_size}"], 1
    else:
        length, epochs = [], math.ceil(steps / case.plan(1).blueprint.task.steps_per_epoch)
    return [*length, f"training.epochs={epochs}", f"evaluation.every_epochs={epochs}"]
