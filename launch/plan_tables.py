"""What launch/plan.py shows."""

from typing import Any

from rich.table import Table

from launch.cutting import Forecast
from launch.preflight import Plan
from launch.rehearsal import Rehearsal


def plan_table(plan: Plan, found: Forecast, rehearsal: Rehearsal) -> Table:
    """One line per process: its layers, its time, its memory, its link; a replica's own time is that of its part."""
    table = Table(title="the cut", title_justify="left", title_style="bold")
    names = ("stage", "layers", "own ms/batch: layers", "rehearsed", "peak MB", "slots MB", "sends MB/batch", "send ms",
             "needs MB/s")  # fmt: skip
    for name in names:
        table.add_column(name, justify="left" if name in names[:2] else "right")
    for report in rehearsal.stages:
        stage = report["stage"]
        last = stage == plan.placement.num_stages - 1
        table.add_row(
            report["label"], " | ".join(_layers(plan, block) for block in plan.placement.blocks_of(stage)),
            f"{1e3 * found.stage_s[stage] / found.replicas[stage]:,.2f}", f"{1e3 * report['step_time_s']:,.2f}",
            f"{report['peak_memory_bytes'] / 1e6:,.0f}", f"{report['slot_bytes'] / 1e6:,.0f}",
            *([""] * 3 if last else _link_cells(plan, rehearsal, report)),
        )  # fmt: skip
    return table


def _layers(plan: Plan, block: int) -> str:
    first, *others = (layer.name for layer in plan.blueprint.layers_of(block))
    return f"{first} .. {others[-1]}" if others else first


def _link_cells(plan: Plan, rehearsal: Rehearsal, report: dict[str, Any]) -> list[str]:
    sent_bytes = plan.layout_after(report["stage"]).slot_bytes / plan.placement.replicas[report["stage"]]
    batches_per_s = rehearsal.samples_per_s / plan.config.data.batch_size
    send_s = _send_s(report["link"])
    return [f"{sent_bytes / 1e6:.2f}", f"{1e3 * send_s:.2f}", f"{sent_bytes * batches_per_s / 1e6:,.0f}"]


def _send_s(link: dict[str, Any]) -> float:
    """Seconds per message, without waits."""
    return link["send_s"] / max(link["messages"], 1)


def plan_lines(plan: Plan, found: Forecast, rehearsal: Rehearsal) -> str:
    """What follows for the whole pipeline."""
    batch = plan.config.data.batch_size
    slowest_s = max(report["step_time_s"] for report in rehearsal.stages)
    bound = batch / slowest_s
    boundaries = ",".join(found.boundaries)
    lines = [
        f"imbalance epsilon (slowest / mean stage, from layers)       {found.imbalance:.3f}",
        f"head overhead alpha (sum of stages / back-propagation - 1)  {found.head_overhead:.3f}",
        f"bound: what the slowest stage allows   {bound:,.0f} samples/s rehearsed, "
        f"{found.bound_samples_per_s:,.0f} from layers",
        f"predicted throughput                   {rehearsal.samples_per_s:,.0f} samples/s rehearsed, "
        f"{found.samples_per_s:,.0f} from layers",
        f"back-propagation in one process        {batch / found.back_propagation_s:,.0f} samples/s from layers",
        *_link_lines(rehearsal, slowest_s),
    ]
    if found.boundaries:
        use = f"to use it: partition.blocks={plan.blueprint.num_blocks} partition.boundaries=[{boundaries}]"
        shared = max(found.replicas) > 1
        lines.append(use + (f" placement.replicas=[{','.join(map(str, found.replicas))}]" if shared else ""))
    return "\n".join(lines)


def _link_lines(rehearsal: Rehearsal, slowest_s: float) -> list[str]:
    """Whether handing a message over takes longer than the slowest stage's work on it."""
    sending = [report["link"] for report in rehearsal.stages if report["stage"] < rehearsal.stages[-1]["stage"]]
    if not sending:
        return []
    slowest_send_s = max(_send_s(link) for link in sending)
    verdict = "binds: use link.dtype or cut elsewhere" if slowest_send_s > slowest_s else "does not bind"
    return [
        f"links ({sending[0]['transport']}): a message takes {1e3 * slowest_send_s:.2f} ms at most, "
        f"{slowest_send_s / slowest_s:.1%} of the slowest stage: {verdict} here; elsewhere each needs the MB/s of its line"
    ]
