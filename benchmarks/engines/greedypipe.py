"""This project's own runs, as a user starts them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.timing import TIMEOUT_S, Case, EngineError
from benchmarks.local_run import run_pipeline

INTERVAL_STEPS = 2
"""Steps between the records that a rate is taken from."""


@dataclass(frozen=True)
class Ran:
    """What one run gave: samples per second after the warm-up, and the stages of its summary."""

    samples_per_s: float
    stages: list[dict[str, Any]]


def run(case: Case, num_processes: int, *overrides: str) -> Ran:
    """Trains warm-up and steps in one epoch and reads the rate of the last stage from its records.

    The first record after the warm-up starts the clock.

    Raises:
        EngineError: The run failed.
    """
    samples = (case.warmup_steps + case.steps) * case.batch_size
    length = [f"data.samples={samples}"] if "data.name=synthetic" in case.overrides else []
    settings = [*case.overrides, *length, f"logging.interval_steps={INTERVAL_STEPS}", *overrides]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(settings, num_processes, Path(folder) / "run", TIMEOUT_S)
        if any(outcome.exit_codes):
            raise EngineError(" ".join(outcome.printed)[-300:])
        rate = outcome.steady_samples_per_s(num_processes - 1, case.batch_size, case.warmup_steps - INTERVAL_STEPS)
        return Ran(rate, outcome.summary["stages"])
