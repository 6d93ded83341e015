"""A short pipeline on synthetic data of the run's own shape: what a cut really gives, with its links, on its devices."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.launch.planning.feedback_delay import FeedbackPace, feedback_pace
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.data.sets.synthetic import SyntheticConfig
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.results import StageReport

WARMUP_STEPS, LEAST_STEPS, MOST_STEPS = 4, 12, 400
AHEAD_STEPS = 12
"""How far a stage can be ahead of the next at the default capacity and slots, rounded up."""
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Rehearsal:
    """What the processes have measured of themselves.

    Attributes:
        samples_per_s: Of the pipeline; never above the bound, though the bound is a mean over the whole rehearsal and this
            is taken from the part of it in which all stages trained.
        bound_samples_per_s: What the slowest stage allows.
        feedback: What feedback between stages allows; None where nothing travels back.
    """

    samples_per_s: float
    bound_samples_per_s: float
    stages: list[StageReport]
    feedback: FeedbackPace | None = None

    @classmethod
    def measured(cls, rates: Sequence[float], stages: list[StageReport], batch_size: int) -> "Rehearsal":
        """The rehearsal of processes that have reported, by the samples per second of every stage."""
        bound = batch_size / max(report.step_time_s for report in stages)
        return cls(min(*rates, bound), bound, stages)


def rehearse(plan: Plan, step_s: float, seconds: float) -> Rehearsal:
    """Trains a plan whose cut is settled for about `seconds` seconds, all its stages as processes of this host.

    Nothing is kept. Blocks; call `multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)` before, for speed.

    Args:
        step_s: Expected seconds per batch.

    Raises:
        RuntimeError: A process failed; with what it printed.
    """
    steps, ahead = min(MOST_STEPS, max(LEAST_STEPS, int(seconds / step_s))), AHEAD_STEPS * (plan.placement.num_stages - 1)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            yaml.safe_dump(_settings(plan, WARMUP_STEPS + steps + ahead, max(2, steps // 8))), encoding="utf-8"
        )
        outcome = run_pipeline([], plan.placement.num_processes, Path(folder) / "run", TIMEOUT_S, config=str(config))
        if any(outcome.exit_codes):
            raise RuntimeError("the rehearsal failed:\n" + "\n".join(outcome.printed))
        rates = outcome.steady_samples_per_s(plan.config.data.batch_size, WARMUP_STEPS)
        measured = Rehearsal.measured(rates, outcome.reports, plan.config.data.batch_size)
        return replace(measured, feedback=feedback_pace(plan, outcome.reports))


def _settings(plan: Plan, steps: int, interval: int) -> dict[str, Any]:
    """The run's configuration with synthetic data and nothing that leaves the run's folder."""
    tree = plan.config.model_dump(mode="json")
    data = plan.config.data
    tree["data"] = SyntheticConfig(
        shape=list(plan.data.input_shape),
        classes=plan.data.num_classes,
        samples=steps * data.batch_size,
        batch_size=data.batch_size,
        drop_last=True,
        augment=data.augment,
        views=data.views,
        pretext=data.pretext,
    ).model_dump(mode="json")
    tree["training"]["epochs"] = tree["evaluation"]["every_epochs"] = 1
    tree["logging"] = LoggingConfig(interval_steps=interval).model_dump(mode="json")
    optimizer, warmup = tree["optimizer"], plan.config.optimizer.warmup(plan.blueprint.steps_per_epoch)
    optimizer["accumulate_batches"] = min(optimizer["accumulate_batches"], steps)
    optimizer["warmup_steps"] = min(warmup, steps // optimizer["accumulate_batches"] - 1)
    optimizer["warmup_epochs"] = 0
    return tree
