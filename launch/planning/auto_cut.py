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
    """What the measured costs of single layers say about a cut, and what follows from that."""

    @property
    def imbalance(self) -> float:
        """Epsilon: the slowest stage's time over the mean one of all processes."""
        return self.slowest_s * sum(self.replicas) / sum(self.stage_s)

    @property
    def slowest_s(self) -> float:
        """Seconds per batch of the stage whose replicas together are the slowest."""
        return max(seconds / count for seconds, count in zip(self.stage_s, self.replicas, strict=True))

    @property
    def head_overhead(self) -> float:
        """Alpha: by how much the stages' work exceeds back-propagation's, as a share of it."""
        return sum(self.stage_s) / self.back_propagation_s - 1


def forecast(plan: Plan, profile: Profile, cores: int) -> Forecast:
    """Cuts so that the slowest stage is as fast as possible; where the plan names its boundaries, judges those instead.

    Args:
        cores: That all stages share; 0 where each has its own device.

    Raises:
        ValueError: There are more blocks than units.
    """
    hosting = [plan.placement.blocks_of(stage) for stage in range(plan.placement.num_stages)]
    named = plan.config.partition.boundaries
    starts = balanced_starts(profile.costs, hosting) if named in ((), AUTO) else profile.starts(named)
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
    """Cores that the CPU stages of this host share; 0 for GPUs. Stages of several hosts are taken to share one's."""
    return len(os.sched_getaffinity(0)) if device.type == "cpu" else 0


def settle_cut(plan: Plan, board: Board, status: StageStatus, device: torch.device) -> tuple[Plan, Prediction | None]:
    """Replaces `auto` by boundaries that stage 0 finds and all others are told; leaves explicit ones as they are.

    Stage 0 measures layers for about `partition.profile_s` seconds on its `device`; the others wait for it that long and
    `faults.timeout_s` more.

    Returns:
        The plan, and the forecast, None where there was none to make.

    Raises:
        TimeoutError: Stage 0 has found nothing.
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
