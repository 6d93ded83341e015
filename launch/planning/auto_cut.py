"""`partition.boundaries=auto`: from measured layers to a plan with explicit boundaries."""

import os
from dataclasses import dataclass

import torch

from greedypipe.launch.planning.layer_costs import Profile, profile_layers
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.balance import balanced_starts
from greedypipe.pipeline.partition import AUTO
from greedypipe.workers.placement import stage_name
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import Board, wait_for
from greedypipe.workers.telemetry.results import Prediction
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.topics import CUT


@dataclass(frozen=True)
class Forecast(Prediction):
    """A prediction for a cut from the measured costs of single layers, and figures derived from it."""

    @property
    def imbalance(self) -> float:
        """Epsilon: the slowest stage's time over the mean time of all processes."""
        return self.slowest_s * sum(self.replicas) / sum(self.stage_s)

    @property
    def slowest_s(self) -> float:
        """Seconds per batch of the slowest stage, its replicas taken together."""
        return max(seconds / count for seconds, count in zip(self.stage_s, self.replicas, strict=True))

    @property
    def head_overhead(self) -> float:
        """Alpha: by how much the stages' work exceeds back-propagation's, as a share of it."""
        return sum(self.stage_s) / self.back_propagation_s - 1


def forecast(plan: Plan, profile: Profile, cores: int) -> Forecast:
    """Cuts so that the slowest stage is as fast as possible; if the plan names boundaries, predicts for those instead.

    Args:
        cores: Number of cores that all stages share; 0 if each stage has its own device.

    Raises:
        ValueError: There are more blocks than units.
    """
    hosting = [plan.placement.blocks_of(stage) for stage in range(plan.placement.num_stages)]
    named = plan.config.partition.boundaries
    starts = profile.starts(named) if named and named != AUTO else balanced_starts(profile.costs, hosting)
    stage_s = tuple(profile.costs.stage_s(starts, blocks) for blocks in hosting)
    crowded_s = sum(stage_s) * plan.config.placement.threads / cores if cores else 0.0
    shared_s = [seconds / count for seconds, count in zip(stage_s, plan.placement.replicas, strict=True)]
    batch = plan.config.data.batch_size
    return Forecast(
        profile.boundaries(starts),
        stage_s,
        plan.placement.replicas,
        profile.costs.back_propagation_s,
        batch / max(shared_s),
        batch / max(*shared_s, crowded_s),
    )


def shared_cores(device: torch.device) -> int:
    """Cores that the CPU stages of this host share; 0 for GPUs. Stages on several hosts count as sharing one host's."""
    return len(os.sched_getaffinity(0)) if device.type == "cpu" else 0


def settle_cut(plan: Plan, board: Board, status: StageStatus, device: torch.device) -> tuple[Plan, Prediction | None]:
    """Replaces `auto` with boundaries that stage 0 finds and posts; keeps explicit ones.

    Stage 0 measures layers for about `partition.profile_s` seconds on its `device`; the others block for that long, and
    for at most `faults.timeout_s` more.

    Returns:
        The plan, and the prediction; None if the boundaries were explicit.

    Raises:
        TimeoutError: Stage 0 has not posted a cut in time.
    """
    if plan.config.partition.boundaries != AUTO:
        return plan, None
    if status.seat.rank == 0 and not board.posted(CUT):
        status.now(Activity.MEASURE_LAYERS)
        board.post(CUT, 0, forecast(plan, profile_layers(plan, device), shared_cores(device)))
    status.now(Activity.WAIT_CUT, stage_name(0))
    timeout_s = plan.config.partition.profile_s + plan.config.faults.timeout_s
    predicted = wait_for(lambda: board.read(CUT)[0], timeout_s, lambda: f"{stage_name(0)} to measure layers")
    return plan.recut(predicted.boundaries), predicted
