"""Plans a run without training it: measures layers, cuts the network, rehearses the cut, says what to expect.

    python launch/plan.py [--config configs/x.yaml] --stages 4 [section.key=value ...]

Empty `partition.boundaries` are found as with `auto`; named ones are kept and judged. Processes beyond the number of
blocks become replicas of the slowest stages, unless placement.replicas says otherwise. The rehearsal runs the stages for
some seconds as processes of this host, on synthetic data of the same shape, and keeps nothing.
"""

import argparse
import json
import multiprocessing
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rich.console import Console

from launch.config import load_config
from launch.cutting import Forecast, cut, forecast, shared_cores
from launch.faults import WRONG_CONFIGURATION
from launch.layer_costs import check_boundaries, profile_layers
from launch.local_run import FORKSERVER_PRELOAD
from launch.plan_tables import plan_lines, plan_table
from launch.preflight import Plan, make_plan, natural_processes
from launch.rehearsal import Rehearsal, rehearse
from launch.run import DEFAULT_CONFIG
from launch.settings import RunConfig
from pipeline.balance import shared_out
from pipeline.partition import AUTO
from workers.allocator import keep_freed_memory


def make_forecast(config: RunConfig, num_processes: int) -> tuple[Plan, Forecast]:
    """The plan with the best cut, or its own where it names one, and what its layers cost. Blocks while measuring.

    Where there are more processes than blocks, and the configuration names no replicas, the slowest stages get them.

    Raises:
        ValueError: The configuration is impossible.
    """
    stages = num_processes
    if config.placement.replicas == (1,):
        stages = min(num_processes, natural_processes(config))
    plan = make_plan(config, stages)
    check_boundaries(plan)
    torch.set_num_threads(plan.config.placement.threads)
    keep_freed_memory()
    device = plan.placement.device_of(0, plan.config.placement)
    if not plan.config.partition.boundaries:
        partition = plan.config.partition.model_copy(update={"boundaries": AUTO})
        plan = make_plan(plan.config.model_copy(update={"partition": partition}), plan.placement.num_processes)
    profile = profile_layers(plan, device)
    found = forecast(plan, profile, shared_cores(device))
    if num_processes > plan.placement.num_processes:
        plan = _with_replicas(plan, shared_out(found.stage_s, num_processes, config.data.batch_size))
        found = forecast(plan, profile, shared_cores(device))
    return cut(plan, found.boundaries), found


def _with_replicas(plan: Plan, replicas: tuple[int, ...]) -> Plan:
    placement = plan.config.placement.model_copy(update={"replicas": replicas})
    return make_plan(plan.config.model_copy(update={"placement": placement}), sum(replicas))


def main() -> None:
    arguments = _parse()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        config = load_config(arguments.config, arguments.overrides)
        console.print(f"measuring layers for {config.partition.profile_s:g} s", highlight=False)
        plan, found = make_forecast(config, arguments.stages)
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"greedypipe: {line}", file=sys.stderr)
        sys.exit(WRONG_CONFIGURATION)
    used = plan.placement.num_processes
    console.print(f"rehearsing with {used} processes for {arguments.seconds:g} s", highlight=False)
    rehearsal = rehearse(plan, plan.config.data.batch_size / found.samples_per_s, arguments.seconds)
    console.print(plan_table(plan, found, rehearsal))
    console.print(plan_lines(plan, found, rehearsal), highlight=False, soft_wrap=True, markup=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(found, rehearsal), indent=1) + "\n")


def as_json(found: Forecast, rehearsal: Rehearsal) -> dict[str, object]:
    """Everything that the command prints, as numbers."""
    derived = {"imbalance": found.imbalance, "head_overhead": found.head_overhead}
    return {"layers": asdict(found) | derived, "rehearsal": asdict(rehearsal)}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch/plan.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="YAML file (default: configs/digits.yaml)")
    parser.add_argument("--stages", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: the cores)")
    parser.add_argument("--seconds", type=float, default=10.0, help="about how long to rehearse (default: 10)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides the file")
    arguments = parser.parse_intermixed_args()
    if arguments.stages < 1:
        parser.error(f"--stages: got {arguments.stages}, allowed: 1 or more")
    return arguments


if __name__ == "__main__":
    main()
