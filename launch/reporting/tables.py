"""What a run prints: the table at its start, the live table, progress lines and the table at its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.reporting.fitting import Column, FittingTable
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.devices.gpu import sharing
from greedypipe.workers.output import printable
from greedypipe.workers.telemetry.activity import Activity, sentence
from greedypipe.workers.telemetry.machine import emulates_bf16
from greedypipe.workers.telemetry.phrases import count_of, range_of_layers, way_of_training
from greedypipe.workers.telemetry.records import Gpu, StageRow
from greedypipe.workers.telemetry.results import Evaluation, RunEnd, Summary

START_COLUMNS = (
    Column("stage", "left"),
    Column("block", "left"),
    Column("layers", "left", shortest=14),
    Column("parameters"),
    Column("head", "left", rank=2),
    Column("output", "left", rank=1),
    Column("bytes/batch", rank=3),
    Column("device", "left", rank=4),
)
LIVE_COLUMNS = (
    Column("stage", "left"),
    Column("block", "left"),
    Column("step"),
    Column("loss", width=6),
    Column("accuracy", rank=1),
    Column("samples/s", rank=2),
    Column("wait in", rank=3),
    Column("wait out", rank=4),
    Column("wait back", rank=7, idle="0%"),
    Column("staleness", rank=5),
    Column("reuse", rank=6),
    Column("doing", "left", width=28, shortest=16),
)
END_COLUMNS = (
    Column("stage", "left"),
    Column("blocks", "left", shortest=6),
    Column("own s/batch"),
    Column("busy"),
    Column("wait in"),
    Column("wait out"),
    Column("wait back", rank=5, idle="0%"),
    Column("staleness", rank=2),
    Column("reuse", rank=3),
    Column("dropped", rank=4),
    Column("peak MB", rank=1),
)

MOST_CLASSES = 10
"""That are shown by name."""


def start_table(plan: Plan, gpus: Sequence[Gpu | None] = ()) -> FittingTable:
    """One row per block: the stage that hosts it, its layers, and what it sends.

    Args:
        gpus: By rank; empty without GPUs.
    """
    table = FittingTable(START_COLUMNS)
    blueprint, stages = plan.blueprint, plan.placement.num_stages
    for stage in range(stages):
        hosted = plan.placement.blocks_of(stage)
        for index in hosted:
            layers = blueprint.layers_of(index)
            is_first, sends = index == hosted[0], index == hosted[-1] and stage < stages - 1
            table.add_row(
                str(stage) if is_first else "",
                str(index),
                range_of_layers([layer.name for layer in layers]),
                f"{_parameters(layer.module for layer in layers):,}",
                "classifier" if index == blueprint.num_blocks - 1 else plan.config.head.name,
                " x ".join(map(str, blueprint.shapes[index].output)),
                f"{plan.layout_after(stage).slot_bytes:,}" if sends else "",
                _device(plan, stage, gpus) if is_first else "",
            )
    return table


def _device(plan: Plan, stage: int, gpus: Sequence[Gpu | None]) -> str:
    """The devices of a stage's replicas."""
    known = dict(enumerate(gpus))
    devices = [gpu.device if (gpu := known.get(seat.rank)) else "cpu" for seat in plan.placement.replicas_of(stage)]
    return f"{len(devices)} x {devices[0]}" if len(set(devices)) < len(devices) else " ".join(devices)


def live_table(rows: Sequence[StageRow | None], labels: list[str], total_steps: int) -> FittingTable:
    """One row per block of every process: its progress and loss, and what the process is doing.

    Args:
        labels: Of the processes' seats, by rank.
    """
    table = FittingTable(LIVE_COLUMNS)
    for label, row in zip(labels, rows, strict=True):
        if row is None:
            table.add_row(label, *[""] * (len(LIVE_COLUMNS) - 2), sentence(Activity.STARTING, ""))
            continue
        for block in row.blocks:
            of_process = (
                f"{row.samples_per_s:,.0f}",
                f"{row.wait_input_fraction:.0%}",
                f"{row.wait_output_fraction:.0%}",
                f"{row.wait_feedback_fraction:.0%}",
                f"{row.staleness_mean:.1f}",
                f"{row.reuse_mean:.2f}",
                row.doing,
            )
            is_first = block == row.blocks[0]
            table.add_row(
                label if is_first else "",
                str(block),
                f"{row.step:>{len(str(total_steps))}}/{total_steps}",
                _figure(row.loss.get(block)),
                _figure(row.accuracy.get(block)),
                *(of_process if is_first else ()),
            )
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def progress_line(rows: Sequence[StageRow | None], total_steps: int) -> str:
    """The live table in one line, for output that is not a terminal; the first replica stands for all of a stage."""
    known = [row for row in rows if row and row.seat.replica == 0]
    if not known:
        return ""
    if not any(row.step for row in known):
        return f"starting: {'; '.join(row.doing for row in known)}"
    losses = " ".join(f"{loss:.3f}" for row in known for loss in row.loss.values())
    steps = " ".join(str(row.step) for row in known)
    return f"step {steps} of {total_steps}   loss {losses or '-'}   {known[-1].samples_per_s:,.0f} samples/s"


def evaluation_line(evaluation: Evaluation, epochs: int) -> str:
    """One evaluation: the accuracy of every head, of which the last is the network's own classifier."""
    *heads, final = evaluation.blocks
    text = f"epoch {evaluation.epoch:>3}/{epochs}   accuracy {final:.4f}"
    if heads:
        text += f"   heads {' '.join(f'{accuracy:.4f}' for accuracy in heads)}   ensemble {evaluation.ensemble:.4f}"
    return text


def end_table(summary: Summary) -> FittingTable:
    """One row per process: where its time went."""
    table = FittingTable(END_COLUMNS, title="where the training time went")
    for report in summary.stages:
        table.add_row(
            report.label,
            ",".join(map(str, report.blocks)),
            f"{report.step_time_s:.4f}",
            f"{report.busy_fraction:.0%}",
            f"{report.wait_input_fraction:.0%}",
            f"{report.wait_output_fraction:.0%}",
            f"{report.wait_feedback_fraction:.0%}",
            f"{report.staleness_mean:.1f}",
            f"{report.reuse_mean:.2f}",
            f"{report.dropped:,}",
            f"{report.peak_memory_bytes / 1e6:,.0f}",
        )
    return table


def result_lines(summary: Summary, folder: Path) -> str:
    """The result of the run, a line each."""
    return (
        f"{_stopped(summary)}{_accuracy(summary)}"
        f"trained for {summary.train_s:.1f} s at {summary.samples_per_s:,.0f} samples/s, "
        f"{summary.efficiency:.0%} of what the slowest stage allows; whole run {summary.wall_s:.1f} s\n"
        f"{_predicted(summary)}"
        f"{_started_again(summary)}"
        f"{folder}"
    )


def _stopped(summary: Summary) -> str:
    return "" if summary.status == RunEnd.FINISHED else "told to stop: saved; --resume auto continues from here\n"


def _accuracy(summary: Summary) -> str:
    if not (accuracy := summary.accuracy):
        return ""
    heads = f", ensemble of all heads {accuracy.ensemble:.4f}" if len(accuracy.blocks) > 1 else ""
    return f"accuracy {accuracy.final:.4f}{heads}\n"


def _started_again(summary: Summary) -> str:
    again = [f"stage {report.label} {report.restarts}" for report in summary.stages if report.restarts]
    return f"started again alone: {', '.join(f'{one} x' for one in again)}\n" if again else ""


def _predicted(summary: Summary) -> str:
    if not (predicted := summary.predicted):
        return ""
    quotient = predicted.samples_per_s / summary.samples_per_s if summary.samples_per_s else 0.0
    cut = ", ".join(predicted.boundaries)
    return f"cut at [{cut}]; predicted {predicted.samples_per_s:,.0f} samples/s, {quotient:.2f} times the measured rate\n"


def headline(plan: Plan, gpus: Sequence[Gpu | None] = ()) -> str:
    """What is trained on what, and how; and which processes share a GPU.

    Args:
        gpus: By rank; empty without GPUs.
    """
    config, data = plan.config, plan.data
    shape, what = " x ".join(map(str, data.input_shape)), "images" if data.has_images else "samples"
    return (
        f"{config.model.name} on {config.data.name} ({data.train_samples:,} + {data.evaluated_samples:,} {what} {shape}), "
        f"{_way(plan)}, "
        f"{count_of(plan.blueprint.num_blocks, 'block')} in {count_of(plan.placement.num_processes, 'process', 'es')}, "
        f"batch {config.data.batch_size}, "
        f"{config.training.precision}, {plan.blueprint.epochs} epochs of {plan.blueprint.steps_per_epoch} steps\n"
        + "\n".join([*sharing(filter(None, gpus)), *_slow_precision(plan, gpus), *data_lines(data)])
    )


def _slow_precision(plan: Plan, gpus: Sequence[Gpu | None]) -> list[str]:
    on_cpu = not gpus or None in gpus
    if not (on_cpu and plan.config.training.precision == "bf16" and emulates_bf16()):
        return []
    return ["note: this processor has no instructions for bf16: training.precision=fp32 is likely faster"]


def _way(plan: Plan) -> str:
    config = plan.config
    return way_of_training(plan.blueprint.num_blocks, config.method.name, config.buffers.policy, config.training.schedule)


def data_lines(data: DataInfo) -> list[str]:
    """Classes, normalisation and evaluation of a data set, and what a user should know of it."""
    counts = data.class_samples or (None,) * data.num_classes
    shown = [
        printable(name) if count is None else f"{printable(name)} ({count:,})"
        for name, count in zip(data.classes[:MOST_CLASSES], counts, strict=False)
    ]
    more = f" and {data.num_classes - MOST_CLASSES:,} more" if data.num_classes > MOST_CLASSES else ""
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (data.mean, data.std))
    lines = [f"{data.num_classes} classes: {', '.join(shown)}{more}; pixels minus {mean}, over {std}"]
    if data.validation_samples:
        lines.append(
            f"evaluated on {data.validation_samples:,} validation images; "
            f"{data.test_samples:,} test images are left for `greedypipe evaluate`"
        )
    return lines + [f"note: {note}" for note in data.notes]


def _parameters(modules: Any) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
