"""The figures of a report: how well the heads do, where the time goes, how old what is read is."""

import math
from collections.abc import Callable
from dataclasses import replace
from html import escape
from itertools import pairwise
from statistics import median_high

from greedypipe.buffers.stats import STALENESS_LIMIT
from greedypipe.launch.reporting.page.charts import MOST_POINTS, Axis, Series, histogram, legend, line_chart, number, percent
from greedypipe.launch.reporting.page.record import RunRecord, StageFigures
from greedypipe.launch.reporting.page.style import BUSY, SPAN_COLOURS, TOGETHER, depth_colour
from greedypipe.workers.telemetry.phrases import range_of_blocks
from greedypipe.workers.telemetry.results import StepRecord

SHARES: dict[str, tuple[Callable[[StageFigures], float | None], str]] = {
    "busy": (lambda stage: stage.busy_fraction, BUSY),
    "wait for input": (lambda stage: stage.wait_input_fraction, SPAN_COLOURS["wait_input"]),
    "wait for room": (lambda stage: stage.wait_output_fraction, SPAN_COLOURS["wait_room"]),
    "wait for feedback": (lambda stage: stage.wait_feedback_fraction, SPAN_COLOURS["wait_feedback"]),
}
LEAST_LABELLED = 0.06
"""Narrower parts of a bar have no room for their label."""
MOST_RATES = 40
"""Points of a throughput curve: shorter intervals show the noise of a few steps."""
SECONDS = Axis("seconds of the stage", number, starts_at_zero=True)


def accuracy_figure(run: RunRecord) -> str:
    """Accuracy of every head over the epochs, from metrics/evaluations.jsonl."""
    count = max((len(evaluation.blocks) for evaluation in run.evaluations), default=0)
    series = [
        Series(
            f"block {block}" if block < count - 1 else f"block {block} (classifier)",
            depth_colour(block, count),
            [(evaluation.epoch, evaluation.blocks[block]) for evaluation in run.evaluations],
        )
        for block in range(count)
    ]
    if count > 1:
        together = [(evaluation.epoch, evaluation.ensemble) for evaluation in run.evaluations]
        series.append(Series("ensemble", TOGETHER, together, dashed=True))
    return line_chart(series, Axis("epoch of stage 0", number, whole=True), Axis("accuracy", percent))


def loss_figure(run: RunRecord) -> str:
    """Local loss of every block over its steps, from metrics/stageK.jsonl."""
    series = []
    for rank, blocks in enumerate(run.blocks):
        for block in blocks:
            points = losses([record for record in run.steps[rank] if record.block == block])
            series.append(Series(f"block {block}", depth_colour(block, run.num_blocks), points))
    return line_chart(series, Axis("step of the block", number, whole=True), Axis("local loss", number))


def losses(records: list[StepRecord]) -> list[tuple[float, float]]:
    """Steps and mean losses of one block, over windows of about equal length.

    A record is the mean since the one before it, which may be of the one step before an evaluation: it counts by its steps.
    """
    ends = [0, *(record.step for record in records)]
    # A run that goes on from a checkpoint counts from an earlier step again.
    lengths = [after - before if after > before else 1 for before, after in pairwise(ends)]
    least = max(median_high(lengths), sum(lengths) / MOST_POINTS) if lengths else 0
    points, steps, total = [], 0, 0.0
    for record, length in zip(records, lengths, strict=True):
        if record.loss is not None:
            steps, total = steps + length, total + length * record.loss
        if steps >= least or (record is records[-1] and steps >= least / 2):
            points.append((float(record.step), total / steps))
            steps, total = 0, 0.0
    return points


def throughput_figure(run: RunRecord) -> str:
    """Training samples per second between one record and the next, waits included, evaluation not."""
    return line_chart(_by_stage(run, rates), SECONDS, Axis("samples per second", number, starts_at_zero=True))


def rates(records: list[StepRecord]) -> list[tuple[float, float]]:
    """Seconds of the run, and samples per second, of a stage's records."""
    points = []
    for before, after in pairwise(records[:: math.ceil(len(records) / MOST_RATES) or 1]):
        # A run that goes on from a checkpoint counts from 0 again.
        counted = before if before.train_s <= after.train_s else replace(before, train_s=0.0, samples=0)
        if train_s := after.train_s - counted.train_s:
            # Not after.time_s: an evaluation or a long end without training may lie between the two.
            points.append((min(before.time_s + train_s, after.time_s), (after.samples - counted.samples) / train_s))
    return points


def occupancy_figure(run: RunRecord) -> str:
    """Mean occupancy so far of the buffer that each stage reads."""

    def occupancies(records: list[StepRecord]) -> list[tuple[float, float]]:
        return [(record.time_s, record.occupancy_mean) for record in records]

    return line_chart(_by_stage(run, occupancies)[1:], SECONDS, Axis("occupancy", percent, starts_at_zero=True))


def staleness_figures(run: RunRecord) -> list[tuple[str, str]]:
    """A title and a histogram for every stage that reads from a buffer."""
    figures = []
    for stage in run.stages:
        if counts := stage.staleness_counts:
            title = f"Stage {stage.label}: mean {stage.staleness_mean:.2f}, largest {stage.staleness_max:,}"
            colour = _colour(run, stage.blocks)
            chart = histogram(counts, Axis("staleness", number), colour, len(counts) > STALENESS_LIMIT)
            figures.append((title, chart))
    return figures


def time_bars(run: RunRecord) -> str:
    """One bar per stage: shares of its training time. What no stage has spent time on is not mentioned."""
    stages = [stage for stage in run.stages if stage.busy_fraction is not None]
    spent = {name: part for name, part in SHARES.items() if any(part[0](stage) for stage in stages)}
    rows = []
    for stage in stages:
        shares = [(name, share(stage) or 0.0, colour) for name, (share, colour) in spent.items()]
        parts = "".join(
            f'<span style="width:{100 * share:.2f}%;background:{colour}" title="{name}: {share:.1%}">'
            f"{f'{share:.0%}' if share >= LEAST_LABELLED else ''}</span>"
            for name, share, colour in shares
        )
        name = f"stage {escape(stage.label)} <small>{escape(range_of_blocks(stage.blocks))}</small>"
        rows.append(f'<div class="name">{name}</div><div class="bar">{parts}</div>')
    if not rows:
        return '<p class="missing">No stage has recorded a training step.</p>'
    return legend((name, colour) for name, (_, colour) in spent.items()) + f'<div class="bars">{"".join(rows)}</div>'


def _by_stage(run: RunRecord, values: Callable[[list[StepRecord]], list[tuple[float, float]]]) -> list[Series]:
    """One line per stage, of the records of its last block."""
    return [
        Series(
            f"stage {run.labels[rank]}",
            _colour(run, blocks),
            values([record for record in run.steps[rank] if record.block == blocks[-1]]),
        )
        for rank, blocks in enumerate(run.blocks)
        if blocks
    ]


def _colour(run: RunRecord, blocks: list[int]) -> str:
    """A stage has the colour of its first block."""
    return depth_colour(blocks[0], run.num_blocks)
