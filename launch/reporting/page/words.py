"""The words and tables of a report: headline, one row per stage, prediction, and what the run ran on."""

from collections.abc import Iterable
from html import escape

import yaml

from greedypipe.launch.reporting.page.record import RunRecord, StageFigures
from greedypipe.workers.telemetry.phrases import count_of, way_of_training
from greedypipe.workers.telemetry.results import Failure

COLUMNS: tuple[tuple[str, str], ...] = (
    ("stage", "position in the pipeline: one process, or several replicas: stage.replica"),
    ("blocks", "that it hosts"),
    ("parameters", "of its layers; its heads' beside them"),
    ("own ms/batch", "milliseconds per training batch without waiting"),
    ("busy", "share of its training time"),
    ("wait in", "share of its training time in which it waited for input"),
    ("wait out", "share of its training time in which it waited for room at the next stage"),
    ("staleness", "newer items that the producer had delivered when an item was read: mean, largest"),
    ("reuse", "reads per item that was read at all"),
    ("dropped", "items replaced before they were read"),
    ("occupancy", "mean of items held / capacity when read"),
    ("sent MB", "evaluation included"),
    ("ms/send", "encoding and copying one message, without waiting"),
    ("slots MB", "memory of the slots that it has made"),
    ("peak MB", "largest memory, see below"),
)
NOTHING = "-"
MEMORY_NOTE = (
    "Peak memory of a CPU stage is its process's resident memory, Python and torch included; pages of slots in shared "
    "memory count at both ends of their link. Of a GPU stage it is what torch has allocated there."
)


def headline(run: RunRecord) -> str:
    """Network and data."""
    return f"{run.setting('model', 'name')} on {run.setting('data', 'name')}"


def method(run: RunRecord) -> str:
    """How it was trained, in one line."""
    blocks, stages = run.num_blocks, len(run.stages)
    slowed = run.setting("debug", "slow_factor") or 1
    width = run.setting("model", "width")
    parts = [
        way_of_training(
            blocks, run.setting("method", "name"), run.setting("buffers", "policy"), run.setting("training", "schedule")
        ),
        f"{count_of(blocks, 'block')} in {count_of(stages, 'process', 'es')}",
        *([f"width {width:g}"] if isinstance(width, int | float) else []),
        f"batch {run.setting('data', 'batch_size')}",
        str(run.setting("training", "precision")),
        count_of(run.setting("training", "epochs"), "epoch"),
        f"seed {run.setting('training', 'seed')}",
    ]
    if slowed > 1:
        parts.append(f"stage {run.setting('debug', 'slow_stage')} slowed {slowed:g}-fold on purpose")
    return " · ".join(map(str, parts))


def cards(run: RunRecord) -> str:
    """The figures that one looks for first; those that the run did not get to are left out."""
    entries: list[tuple[str, str]] = []
    if run.evaluations:
        last = run.evaluations[-1]
        entries.append((f"{100 * last.blocks[-1]:.2f}%", f"accuracy, epoch {last.epoch}"))
        if len(last.blocks) > 1:
            entries.append((f"{100 * last.ensemble:.2f}%", "ensemble"))
    if run.end and run.is_finished:
        if run.is_replay or run.is_one_by_one:  # no stage bounds the others, or each does in its part of the run
            entries.append((f"{run.end.samples_per_s:,.0f}", "samples/s until all stages had trained"))
        else:
            entries.append((f"{run.end.samples_per_s:,.0f}", "samples/s"))
            entries.append((f"{run.end.efficiency:.0%}", f"of the bound, {run.end.bound_samples_per_s:,.0f}/s"))
        entries.append((seconds(run.end.train_s), "training"))
        entries.append((seconds(run.end.wall_s), "whole run"))
    elif steps := [record.step for records in run.steps for record in records]:
        entries.append((f"{max(steps):,}", "steps, as last recorded"))
    return "".join(f"<div class='card'><b>{value}</b><span>{escape(name)}</span></div>" for value, name in entries)


def failure(run: RunRecord) -> str:
    """Why there is no complete result; empty where there is one."""
    if run.is_finished:
        return ""
    cause = "no process of it was left to write summary.json; it may still be running"
    if isinstance(run.summary, Failure):
        cause = run.summary.cause
    elif run.summary:
        cause = "told to stop: it has saved itself and can be resumed"
    return f'<div class="failure"><b>{escape(run.status)}</b> {escape(cause)}</div>'


def stage_table(run: RunRecord) -> str:
    """One row per stage, and what the words in its head mean."""
    head = "".join(f'<th title="{escape(meaning)}">{escape(name)}</th>' for name, meaning in COLUMNS)
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _stage_cells(stage))}</tr>" for stage in run.stages)
    return f'<div class="wide"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def bottleneck(run: RunRecord) -> str:
    """One sentence on which stage holds the others back, and what an even cut of the same work would allow."""
    stages = [stage for stage in run.end.stages if stage.step_time_s and stage.batches] if run.end else []
    if not run.is_finished or len(stages) < 2 or run.is_one_by_one:
        return ""
    slowest = max(stages, key=lambda stage: stage.step_time_s)
    mean_s = sum(stage.step_time_s for stage in stages) / len(stages)
    bound = slowest.samples / slowest.batches / slowest.step_time_s
    text = f"Stage {slowest.label} is the slowest: {1000 * slowest.step_time_s:.1f} ms of its own per batch, "
    if run.is_replay:
        return text + "but nobody waits for it: the others go on with what they have."
    return text + (
        f"so this cut allows at most {bound:,.0f} samples/s. The same work cut evenly would allow "
        f"{bound * slowest.step_time_s / mean_s:,.0f}."
    )


def prediction(run: RunRecord) -> str:
    """Throughput as predicted before the run and as measured; empty where nothing was predicted."""
    if not run.end or not (predicted := run.end.predicted):
        return ""
    figures = (
        ("throughput", predicted.samples_per_s, run.end.samples_per_s),
        ("bound by the slowest stage", predicted.bound_samples_per_s, run.end.bound_samples_per_s),
    )
    rows = [
        f"<tr><td>{name}</td><td>{before:,.0f}</td><td>{after:,.0f}</td><td>{after / before:.0%}</td></tr>"
        for name, before, after in figures
    ]
    head = "<th>samples/s</th><th>predicted</th><th>measured</th><th>measured / predicted</th>"
    return f'<table class="figures small"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def setup_table(run: RunRecord) -> str:
    """Hardware and versions, and the whole configuration folded away."""
    hardware, versions = (run.end.hardware, run.end.versions) if run.end else ({}, {})
    entries = {"folder": run.folder, **{name: value for name, value in hardware.items() if name != "gpus"}}
    entries |= {"GPUs": ", ".join(hardware.get("gpus", [])) or "none"} if hardware else {}
    entries |= versions
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in entries.items())
    config = escape(yaml.safe_dump(run.config, sort_keys=False))
    return f'<table class="setup">{rows}</table><details><summary>configuration</summary><pre>{config}</pre></details>'


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _stage_cells(stage: StageFigures) -> Iterable[str]:
    has_reads = stage.reuse_mean is not None
    has_parameters = stage.parameters is not None
    yield escape(stage.label)
    yield ", ".join(map(str, stage.blocks)) or NOTHING
    yield f"{stage.parameters:,} <small>+ {stage.head_parameters:,}</small>" if has_parameters else NOTHING
    yield _cell(stage.step_time_s, "{:.2f}", 1e3)
    for fraction in (stage.busy_fraction, stage.wait_input_fraction, stage.wait_output_fraction):
        yield _cell(fraction, "{:.0%}")
    yield f"{stage.staleness_mean:.1f}, {stage.staleness_max:,}" if has_reads else NOTHING
    yield _cell(stage.reuse_mean, "{:.2f}")
    yield _cell(stage.dropped, "{:,}")
    yield _cell(stage.occupancy_mean, "{:.0%}")
    yield _cell(stage.sent_bytes, "{:,.1f}", 1e-6)
    yield _cell(stage.send_s, "{:.3f}", 1e3)
    yield _cell(stage.slot_bytes, "{:,.1f}", 1e-6)
    yield _cell(stage.peak_memory_bytes, "{:,.0f}", 1e-6)


def _cell(value: float | None, form: str, factor: float = 1) -> str:
    return NOTHING if value is None else form.format(value * factor if factor != 1 else value)
