"""Whether the work of blocks can be recorded as CUDA graphs: what `training.graphs=on` cannot be combined with."""

from collections.abc import Iterator

import torch

from greedypipe.launch.config.sections import RunConfig
from greedypipe.pipeline.build import Blueprint
from greedypipe.workers.around.scripted_faults import DebugConfig
from greedypipe.workers.placement import Placement


def recording_problems(
    config: RunConfig, blueprint: Blueprint, placement: Placement | None, device: torch.device | None
) -> Iterator[str]:
    """A line for everything that stands against `training.graphs=on`; none for `auto` and `off`, possible anywhere.

    Args:
        placement: None if unknown, which skips the checks against it; `device` too.
    """
    if config.training.graphs != "on":
        return
    for beside, why in _against(config, blueprint, placement, device):
        yield f"training.graphs: got on {beside}, allowed: auto, off: {why}"


def _against(
    config: RunConfig, blueprint: Blueprint, placement: Placement | None, device: torch.device | None
) -> Iterator[tuple[str, str]]:
    """What is there besides, and why the two exclude each other."""
    if device and device.type != "cuda":
        yield f"with stages on a {device.type}", "graphs are CUDA's"
    if placement and (most := max(placement.replicas)) > 1:
        yield f"with placement.replicas={most}", "replicas wait for each other in every step"
    if config.training.compile != "none":
        yield f"with training.compile={config.training.compile}", "it decides itself how work is started"
    if config.debug != DebugConfig():
        yield "with keys of section debug", "deliberate trouble comes between the steps"
    if reason := blueprint.unrecorded:
        yield f"with method.name={config.method.name}", reason
    if not config.optimizer.takes_tensors:
        yield (
            f"with optimizer.name={config.optimizer.name}",
            "its learning rate is a number, which a graph would keep for ever",
        )
    if config.optimizer.accumulate_batches > 1:
        yield f"with optimizer.accumulate_batches={config.optimizer.accumulate_batches}", "most batches make no step"
