"""Everything about a run that can be known, and found wrong, before any process talks to another."""

from dataclasses import dataclass

import torch

from launch.config import ConfigError
from launch.placement import Placement
from launch.settings import RunConfig
from pipeline.build import Blueprint, Task
from workers.data.catalog import DataInfo, check, describe
from workers.encoding import TensorSpec
from workers.messages import Kind, MessageLayout


@dataclass(frozen=True)
class Plan:
    """A configuration that has been found possible, with what follows from it. Equal in all processes of the run."""

    config: RunConfig
    data: DataInfo
    blueprint: Blueprint
    placement: Placement

    def layout_after(self, stage: int) -> MessageLayout:
        """What travels from `stage` to the next one."""
        last = self.placement.blocks_of(stage)[-1]
        precision = self.blueprint.precision
        labels = TensorSpec("labels", (), torch.int64)
        activation = TensorSpec(
            "activation", self.blueprint.shapes[last].output, precision.activation_dtype, precision.channels_last,
            self.config.link.dtype,
        )  # fmt: skip
        image = (TensorSpec("image", self.data.input_shape, torch.float32),) if self.sends_image(stage) else ()
        ensemble = TensorSpec("ensemble", (self.data.num_classes,), torch.float32)
        specs = {Kind.TRAIN: (labels, activation, *image), Kind.EVALUATE: (labels, activation, ensemble)}
        return MessageLayout(self.config.data.batch_size, specs)

    def sends_image(self, stage: int) -> bool:
        """Whether a block after `stage` wants the input images."""
        behind = range(self.placement.blocks_of(stage)[-1] + 1, self.blueprint.num_blocks)
        return any(self.blueprint.needs_image(block) for block in behind)


def make_plan(config: RunConfig, num_processes: int) -> Plan:
    """Checks the configuration against data, network and number of processes; reads no image and downloads nothing.

    Raises:
        ConfigError: Something is missing or impossible.
    """
    try:
        check(config.data)
        data = describe(config.data)
        last = config.data.batch_size if config.data.drop_last else 1
        steps = (data.train_samples - last) // config.data.batch_size + 1
        blueprint = Blueprint(config.sections(), Task(data.input_shape, data.num_classes, steps))
        placement = Placement(num_processes, blueprint.num_blocks)
        placement.device_of(0, config.placement)
        if config.optimizer.warmup_steps >= blueprint.total_steps:
            raise ValueError(
                f"optimizer.warmup_steps: got {config.optimizer.warmup_steps}, allowed: below the run's "
                f"{blueprint.total_steps} steps ({config.training.epochs} epochs of {steps})"
            )
        for key in ("slow_stage", "fault_stage"):
            if getattr(config.debug, key) >= num_processes:
                raise ValueError(f"debug.{key}: got {getattr(config.debug, key)}, allowed: below {num_processes} stages")
        return Plan(config, data, blueprint, placement)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
