"""Plans a run without training it: measures layers, cuts the network, rehearses the cut, and predicts throughput.

    greedypipe plan [--config x.yaml] --stages 4 [section.key=value ...]

If `partition.boundaries` is empty, the command finds boundaries, as with `auto`; named ones are kept and judged. Processes
beyond the number of blocks become replicas of the slowest stages, unless placement.replicas is set. The rehearsal runs the
stages for some seconds as processes of this host, on synthetic data of the same shape, and keeps nothing.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from rich.table import Table

from greedypipe.launch.config.command_line import RunCommandLine, command, refuse, user_path
from greedypipe.launch.config.loader import DEFAULT_CONFIG, load_config
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.reporting.console import standard_output
from greedypipe.workers.telemetry.phrases import range_of_layers

if TYPE_CHECKING:
    from greedypipe.launch.on_host.rehearsal import Rehearsal
    from greedypipe.launch.planning.auto_cut import Forecast
    from greedypipe.launch.planning.head_costs import HeadCost
    from greedypipe.launch.planning.run_plan import Plan
    from greedypipe.workers.telemetry.results import StageReport


@command
def main() -> None:
    arguments = _parse()
    # Imported late: the help does without.
    from greedypipe.launch.on_host.rehearsal import rehearse
    from greedypipe.launch.planning.best_cut import make_forecast
    from greedypipe.launch.planning.head_costs import head_costs

    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    console = standard_output(150)
    try:
        config = load_config(arguments.config or DEFAULT_CONFIG, arguments.overrides)
        console.print(f"measuring layers for {config.partition.profile_s:g} s")
        plan, found = make_forecast(config, arguments.stages)
    except ValueError as error:
        refuse(error)
    heads = head_costs(plan, plan.placement.device_of(0, plan.config.placement))
    used = plan.placement.num_processes
    console.print(f"rehearsing with {used} processes for {arguments.seconds:g} s")
    rehearsal = rehearse(plan, plan.config.data.batch_size / found.samples_per_s, arguments.seconds)
    console.print(plan_table(plan, found, rehearsal, heads))
    console.print(plan_lines(plan, found, rehearsal, heads), soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(found, rehearsal, heads), indent=1) + "\n", encoding="utf-8")


def as_json(found: "Forecast", rehearsal: "Rehearsal", heads: Sequence["HeadCost"]) -> dict[str, object]:
    """All numbers that the command prints."""
    derived = {"imbalance": found.imbalance, "head_overhead": found.head_overhead}
    numbers: dict[str, object] = {"layers": asdict(found) | derived, "rehearsal": asdict(rehearsal)}
    numbers["heads"] = [*map(asdict, heads)]
    if pace := rehearsal.feedback:
        numbers["feedback"] = {"needed_delays": pace.needed_delays, "share_of_bound": pace.share_of_bound}
    return numbers


def _parse() -> argparse.Namespace:
    parser = RunCommandLine(__doc__, lists_keys=False)
    parser.add_argument("--stages", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: the cores)")
    parser.add_argument("--seconds", type=float, default=10.0, help="approximate length of the rehearsal (default: 10)")
    parser.add_argument("--json", type=user_path, help="also write the numbers to this file")
    arguments = parser.parse_intermixed_args()
    if arguments.stages < 1:
        parser.error(f"--stages: got {arguments.stages}, allowed: 1 or more")
    return arguments


def plan_table(plan: "Plan", found: "Forecast", rehearsal: "Rehearsal", heads: Sequence["HeadCost"]) -> Table:
    """One line per process: layers, time, heads' share, memory, link; a replica's own time is for its part of the batch."""
    table = Table(title="the cut", title_justify="left", title_style="bold")
    names = (
        "stage",
        "layers",
        "own ms/batch: layers",
        "rehearsed",
        "heads: MACs / time",
        "peak MB",
        "slots MB",
        "sends MB/batch",
        "send ms",
        "needs MB/s",
    )
    pace = rehearsal.feedback
    for name in (*names, *(["full-speed delay"] if pace else [])):
        table.add_column(name, justify="left" if name in names[:2] else "right")
    for report in rehearsal.stages:
        stage = report.stage
        last = stage == plan.placement.num_stages - 1
        table.add_row(
            report.label,
            " | ".join(_layers(plan, block) for block in plan.placement.blocks_of(stage)),
            f"{1e3 * found.stage_s[stage] / found.replicas[stage]:,.2f}",
            f"{1e3 * report.step_time_s:,.2f}",
            _shares([heads[block] for block in plan.placement.blocks_of(stage)]),
            f"{report.peak_memory_bytes / 1e6:,.0f}",
            f"{report.slot_bytes / 1e6:,.0f}",
            *([""] * 3 if last else _link_cells(plan, rehearsal, report)),
            *([f"{pace.needed_delays[stage]:.2f}"] if pace and not last else []),
        )
    return table


def _layers(plan: "Plan", block: int) -> str:
    return range_of_layers([layer.name for layer in plan.blueprint.layers_of(block)])


def _shares(costs: Sequence["HeadCost"]) -> str:
    """What share of these blocks' multiply-adds and of their time is that of heads."""
    return str(sum(costs[1:], costs[0]))


def _link_cells(plan: "Plan", rehearsal: "Rehearsal", report: "StageReport") -> list[str]:
    sent_bytes = plan.layout_after(report.stage).slot_bytes / plan.placement.replicas[report.stage]
    batches_per_s = rehearsal.samples_per_s / plan.config.data.batch_size
    send_s = report.link.message_s
    return [f"{sent_bytes / 1e6:.2f}", f"{1e3 * send_s:.2f}", f"{sent_bytes * batches_per_s / 1e6:,.0f}"]


def plan_lines(plan: "Plan", found: "Forecast", rehearsal: "Rehearsal", heads: Sequence["HeadCost"]) -> str:
    """Figures of the whole pipeline."""
    batch = plan.config.data.batch_size
    slowest_s = max(report.step_time_s for report in rehearsal.stages)
    boundaries = ",".join(found.boundaries)
    lines = [
        f"imbalance epsilon (slowest / mean stage, from layers)       {found.imbalance:.3f}",
        f"head overhead alpha (sum of stages / back-propagation - 1)  {found.head_overhead:.3f}",
        f"heads' share of MACs / of time, in one process              {_shares(heads)}",
        f"bound set by the slowest stage         {rehearsal.bound_samples_per_s:,.0f} samples/s rehearsed, "
        f"{found.bound_samples_per_s:,.0f} from layers",
        f"predicted throughput                   {rehearsal.samples_per_s:,.0f} samples/s rehearsed, "
        f"{found.samples_per_s:,.0f} from layers",
        f"back-propagation in one process        {batch / found.back_propagation_s:,.0f} samples/s from layers",
        *_link_lines(rehearsal, slowest_s),
        *_feedback_lines(rehearsal),
    ]
    if found.boundaries:
        use = f"to use it: partition.blocks={plan.blueprint.num_blocks} partition.boundaries=[{boundaries}]"
        shared = max(found.replicas) > 1
        lines.append(use + (f" placement.replicas=[{','.join(map(str, found.replicas))}]" if shared else ""))
    return "\n".join(lines)


def _feedback_lines(rehearsal: "Rehearsal") -> list[str]:
    """Which delay of feedback would cost no speed, and what the configured one costs."""
    if (pace := rehearsal.feedback) is None:
        return []
    return [
        f"feedback: a message and its answer take {1e3 * max(pace.round_trip_s):.2f} ms at most: full speed needs "
        f"feedback.delay of {max(pace.needed_delays):.2f} here; the configured {', '.join(map(str, pace.delays))} allows "
        f"{pace.share_of_bound:.1%} of the bound"
    ]


def _link_lines(rehearsal: "Rehearsal", slowest_s: float) -> list[str]:
    """Whether sending a message takes longer than the slowest stage's work on it."""
    sending = [report.link for report in rehearsal.stages if report.stage < rehearsal.stages[-1].stage]
    if not sending:
        return []
    slowest_send_s = max(link.message_s for link in sending)
    verdict = "binds: use link.dtype or cut elsewhere" if slowest_send_s > slowest_s else "does not bind"
    return [
        f"links ({sending[0].transport}): a message takes {1e3 * slowest_send_s:.2f} ms at most, "
        f"{slowest_send_s / slowest_s:.1%} of the slowest stage: {verdict} here; between hosts each needs the MB/s above"
    ]


if __name__ == "__main__":
    main()
