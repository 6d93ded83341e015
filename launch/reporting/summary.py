"""The figures of a run that has ended: what each stage reports, and what follows for the pipeline."""

import itertools
from dataclasses import fields

import torch

from greedypipe.pipeline.block import Block
from greedypipe.workers.devices.gpu import gpu_versions, report_gpu
from greedypipe.workers.inbox import MessageStream
from greedypipe.workers.lines import Line
from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.memory import peak_memory_bytes
from greedypipe.workers.telemetry.machine import hardware, versions
from greedypipe.workers.telemetry.meter import Stopwatch
from greedypipe.workers.telemetry.results import (
    Accuracy,
    CheckpointCounts,
    Evaluation,
    LinkReport,
    Prediction,
    RunEnd,
    StageReport,
    Summary,
)
from greedypipe.workers.telemetry.status import StageStatus


def report_stage(
    status: StageStatus,
    blocks: list[Block],
    watch: Stopwatch,
    inbox: MessageStream,
    outbox: Sender,
    before: Line,
    behind: Line,
) -> StageReport:
    """The report of the calling process, without what its files have cost."""
    stats, seat = inbox.stats(), status.seat
    slot_bytes = inbox.slot_bytes + outbox.stats.slot_bytes
    return StageReport(
        stage=seat.stage,
        replica=seat.replica,
        label=seat.label,
        restarts=status.incarnation,
        began_unix_s=status.began_unix_s,
        blocks=[block.index for block in blocks],
        parameters=sum(block.num_parameters for block in blocks),
        head_parameters=sum(block.num_head_parameters for block in blocks),
        batches=watch.batches,
        samples=watch.samples,
        step_time_s=watch.step_time_s,
        samples_per_s=watch.samples_per_s,
        busy_fraction=watch.fraction(watch.busy_s),
        wait_input_fraction=watch.fraction(watch.wait_input_s),
        wait_output_fraction=watch.fraction(watch.wait_output_s),
        wait_feedback_fraction=watch.fraction(watch.wait_feedback_s),
        train_s=watch.train_s,
        hand_on_s=watch.hand_on_s,
        evaluate_s=watch.evaluate_s,
        peak_memory_bytes=peak_memory_bytes(blocks[0].device),
        threads=torch.get_num_threads(),
        staleness_mean=stats.staleness_mean,
        staleness_max=stats.staleness_max,
        reuse_mean=stats.reuse_mean,
        occupancy_mean=stats.occupancy_mean,
        dropped=stats.dropped,
        staleness_counts=stats.staleness_counts[: stats.staleness_max + 1] if stats.reads else [],
        slot_bytes=slot_bytes,
        link=_link_report(outbox.stats),
        back=_link_report(before.stats) if before.stats else None,
        feedback_age_mean=behind.age_mean,
        gpu=report_gpu(blocks[0].device, watch),
    )


def _link_report(stats: LinkStats) -> LinkReport:
    return LinkReport(**{field.name: getattr(stats, field.name) for field in fields(LinkReport)})


def summarise(
    reports: list[StageReport],
    evaluations: list[Evaluation],
    wall_s: float,
    *,
    is_finished: bool,
    predicted: Prediction | None,
    checkpoints: CheckpointCounts,
    began_at: int,
) -> Summary:
    """The content of `summary.json`.

    Args:
        reports: In the order of ranks.
        evaluations: In the order of epochs.
        wall_s: Seconds of the whole run; of a resumed one, since it was resumed.
        is_finished: False if the run was told to stop early.
        predicted: What the planner expected of the run; None if it was not asked.
        began_at: The first training batch; above 0 in a run that resumed from a checkpoint.
    """
    rates = [_own_samples_per_s(stage) for stage in _by_stage(reports)]
    bound = min((rate for rate in rates if rate), default=0.0)
    # One stage can run ahead of the others: what counts is when every stage has trained on every batch.
    train_s = max(report.train_s for report in reports)
    measured = sum(report.samples for report in _by_stage(reports)[-1]) / train_s if train_s else 0.0
    last = evaluations[-1] if evaluations else None
    return Summary(
        status=RunEnd.FINISHED if is_finished else RunEnd.STOPPED,
        accuracy=Accuracy(last.blocks, last.blocks[-1], last.ensemble) if last else None,
        began_at_batch_id=began_at,
        checkpoints=checkpoints,
        samples_per_s=measured,
        bound_samples_per_s=bound,
        efficiency=measured / bound if bound else 0.0,
        wall_s=wall_s,
        train_s=train_s,
        stages=reports,
        evaluations=evaluations,
        versions=versions() | gpu_versions(),
        hardware=hardware(),
        predicted=predicted,
    )


def _by_stage(reports: list[StageReport]) -> list[list[StageReport]]:
    return [list(group) for _, group in itertools.groupby(reports, key=lambda report: report.stage)]


def _own_samples_per_s(replicas: list[StageReport]) -> float:
    """The rate that a stage's own time allows, all replicas at the pace of the slowest; 0 if it has not trained."""
    slowest_s = max(report.step_time_s * report.batches for report in replicas)
    return sum(report.samples for report in replicas) / slowest_s if slowest_s else 0.0
