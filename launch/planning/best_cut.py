"""The best cut of a network for a number of processes, and what it promises."""

import torch

from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.auto_cut import Forecast, forecast, shared_cores
from greedypipe.launch.planning.layer_costs import check_boundaries, profile_layers
from greedypipe.launch.planning.run_plan import Plan, make_plan, natural_processes
from greedypipe.pipeline.balance import processes_per_stage
from greedypipe.workers.memory import keep_freed_memory


def make_forecast(config: RunConfig, num_processes: int) -> tuple[Plan, Forecast]:
    """The plan with the best cut, or with the configuration's own, and its prediction from layers. Blocks while measuring.

    If there are more processes than blocks, and the configuration sets no replicas, the slowest stages get the surplus.

    Raises:
        ValueError: The configuration is impossible.
    """
    if config.training.schedule != "together":
        got = config.training.schedule
        raise ValueError(f"training.schedule: got {got}, allowed: together: plans are of stages that train at the same time")
    has_replicas = config.placement.replicas != (1,)
    plan = make_plan(config, num_processes if has_replicas else min(num_processes, natural_processes(config)))
    check_boundaries(plan)
    torch.set_num_threads(plan.config.placement.threads)
    keep_freed_memory()
    device = plan.placement.device_of(0, plan.config.placement)
    profile = profile_layers(plan, device)
    found = forecast(plan, profile, shared_cores(device))
    if num_processes > plan.placement.num_processes:
        plan = plan.with_replicas(processes_per_stage(found.stage_s, num_processes, config.data.batch_size))
        found = forecast(plan, profile, shared_cores(device))
    return plan.recut(found.boundaries), found
