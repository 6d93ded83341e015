"""Records as processes post and write them, for tests to vary."""

from dataclasses import replace
from typing import Any

from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity, sentence
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import CheckpointCounts, LinkReport, RunEnd, StageReport, Summary
from greedypipe.workers.telemetry.status import StageStatus


def make_row(activity: Activity = Activity.COMPUTING, peer: str = "", **changes: Any) -> StageRow:
    """What a process of stage 0 says of itself, but for the changes."""
    status = StageStatus(Seat(0, 0), [0], 1, "here", activity=activity, peer=peer)
    return replace(status.row(), **{"doing": sentence(activity, peer)} | changes)


def make_report(stage: int = 0, **changes: Any) -> StageReport:
    """The report of a stage of one block that has trained for a second, but for the changes."""
    report = StageReport(
        stage=stage,
        replica=0,
        label=str(stage),
        restarts=0,
        began_unix_s=0.0,
        blocks=[stage],
        parameters=10,
        head_parameters=5,
        batches=10,
        samples=80,
        step_time_s=0.1,
        samples_per_s=80.0,
        busy_fraction=1.0,
        wait_input_fraction=0.0,
        wait_output_fraction=0.0,
        wait_feedback_fraction=0.0,
        train_s=1.0,
        hand_on_s=0.0,
        evaluate_s=0.0,
        peak_memory_bytes=1000,
        threads=1,
        staleness_mean=0.0,
        staleness_max=0,
        reuse_mean=0.0,
        occupancy_mean=0.0,
        dropped=0,
        staleness_counts=[],
        slot_bytes=0,
        save_stalled_s=0.0,
        link=LinkReport("shm", 10, 1000, 0.0, 0.0, 0),
    )
    return replace(report, **changes)


def make_summary(stages: int = 1, **changes: Any) -> Summary:
    """The summary of a run that has finished, but for the changes."""
    summary = Summary(
        status=RunEnd.FINISHED,
        accuracy=None,
        began_at_batch_id=0,
        checkpoints=CheckpointCounts(0, 0),
        samples_per_s=80.0,
        bound_samples_per_s=80.0,
        efficiency=1.0,
        wall_s=2.0,
        train_s=1.0,
        stages=[make_report(stage) for stage in range(stages)],
        evaluations=[],
        versions={},
        hardware={},
    )
    return replace(summary, **changes)
