"""A run's network as it was trained: its blocks, with their layers and methods, in one process of this machine."""

import json
from collections.abc import Sequence
from pathlib import Path

from greedypipe.launch.checkpoints.manifest import parse_manifest
from greedypipe.launch.checkpoints.trained_network import restore
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.block import Block


def plan_of(checkpoint: Path, overrides: Sequence[str]) -> Plan:
    """The plan of the run that has left a checkpoint, for one process of this machine, without deliberate trouble.

    Raises:
        ConfigError: The data are missing, or an override is wrong.
    """
    saved = RunConfig.model_validate(parse_manifest(checkpoint).config).model_dump(mode="json", exclude={"debug"})
    own = [f"{section}.{key}={json.dumps(value)}" for section, keys in saved.items() for key, value in keys.items()]
    return make_plan(load_config(None, [*own, *overrides]), 1)


def trained_blocks(plan: Plan, checkpoint: Path) -> list[Block]:
    """All blocks of a plan with a checkpoint's state, in order, on the plan's device."""
    device = plan.placement.device_of(0, plan.config.placement)
    blocks = [plan.blueprint.build_block(index, device) for index in range(plan.blueprint.num_blocks)]
    restore(blocks, checkpoint)
    return blocks
