"""Which delay of feedback a cut needs for full speed, and what a smaller one costs (docs/feedback.md, "Which delay")."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.telemetry.results import StageReport


@dataclass(frozen=True)
class FeedbackPace:
    """What limits a pipeline in which a message goes up some stages and feedback comes down again.

    Attributes:
        stage_s: Own seconds per batch of every stage.
        round_trip_s: Seconds of a message and of its feedback, for every boundary between stages.
        delays: `feedback.delay` of the same boundaries.
    """

    stage_s: tuple[float, ...]
    round_trip_s: tuple[float, ...]
    delays: tuple[int, ...]

    @property
    def needed_delays(self) -> tuple[float, ...]:
        """The smallest delay at every boundary with which no stage waits for feedback."""
        return tuple(1 + seconds / max(self.stage_s) for seconds in self.round_trip_s)

    @property
    def period_s(self) -> float:
        """Seconds per batch that the slowest circuit allows. A circuit goes up some stages and down again, and as many
        batches are on their way in it as its lines hold, and one more."""
        return max(self._circuits())

    @property
    def share_of_bound(self) -> float:
        """Throughput that feedback allows, as a share of what the slowest stage allows."""
        return max(self.stage_s) / self.period_s

    def _circuits(self) -> Iterator[float]:
        for first in range(len(self.stage_s)):
            for last in range(first, len(self.stage_s)):
                passed = sum(self.stage_s[first : last + 1]) + sum(self.round_trip_s[first:last])
                yield passed / (sum(self.delays[first:last]) + 1)


def feedback_pace(plan: Plan, reports: Sequence[StageReport]) -> FeedbackPace | None:
    """The pace of a plan whose processes have reported, in the order of ranks; None where nothing travels back between
    stages. Of several replicas the slowest counts. A message takes what sending it takes, without the network."""
    placement = plan.placement
    if placement.num_stages == 1 or not plan.blueprint.has_feedback:
        return None
    by_stage = [[one for one in reports if one.stage == stage] for stage in range(placement.num_stages)]
    forward = [max(one.link.message_s for one in stage) for stage in by_stage[:-1]]
    back = [max(one.back.message_s if one.back else 0.0 for one in stage) for stage in by_stage[1:]]
    delays = plan.config.feedback.delays(plan.blueprint.num_blocks)
    return FeedbackPace(
        tuple(max(one.step_time_s for one in stage) for stage in by_stage),
        tuple(up + down for up, down in zip(forward, back, strict=True)),
        tuple(delays[placement.blocks_of(stage)[-1]] for stage in range(placement.num_stages - 1)),
    )
