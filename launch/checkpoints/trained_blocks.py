"""A run's network as it was trained: its blocks, with their layers and methods, in one process of this machine."""

import copy
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from greedypipe.launch.checkpoints.manifest import parse_manifest
from greedypipe.launch.checkpoints.trained_network import restore
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.idle import without_idle
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.block import Block


def plan_of(checkpoint: Path, overrides: Sequence[str]) -> Plan:
    """The plan of the run that has left a checkpoint, for one process of this machine, without deliberate trouble.

    It is of the data that the run was trained on; they need not be there.

    Raises:
        ConfigError: An override is wrong; or the data are missing, where the checkpoint is too old to describe them.
    """
    manifest = parse_manifest(checkpoint)
    saved = RunConfig.model_validate(without_idle(manifest.config, manifest.config)).model_dump(
        mode="json",
        exclude={"debug": True, "training": {"graphs", "deterministic"}},  # which need the run's own devices
    )
    own = [f"{section}.{key}={json.dumps(value)}" for section, keys in saved.items() for key, value in keys.items()]
    return make_plan(load_config(None, [*own, *overrides]), 1, manifest.data)


def trained_blocks(plan: Plan, checkpoint: Path) -> list[Block]:
    """All blocks of a plan with a checkpoint's state, in order, on the plan's device.

    Raises:
        ConfigError: The plan is cut where the checkpoint is not, so that some heads would not be trained.
    """
    device = plan.placement.device_of(0, plan.config.placement)
    blocks = [plan.blueprint.build_block(index, device) for index in range(plan.blueprint.num_blocks)]
    if fresh := restore(blocks, checkpoint):
        layers = ", ".join(block.layers[-1].name for block in fresh)
        raise ConfigError(
            [f"partition: the checkpoint has no trained head behind {layers}, allowed: the cut of its own run"]
        )
    return blocks


def plain_network(blocks: Sequence[Block]) -> nn.Sequential:
    """A copy of the network of these blocks in evaluation mode, without auxiliary heads: images to outputs [N, classes]. Its
    children are layers and classifier, by their names (with `_` where a name has a dot)."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for block in blocks:
        layers = (*block.layers, block.site.classifier) if block.site.classifier else block.layers
        modules |= {layer.name.replace(".", "_"): layer.module for layer in layers}
        if codec := block.codec.as_module():
            modules[f"codec{block.index}"] = codec
    network = nn.Sequential(modules)
    return copy.deepcopy(network).eval()
