"""Everything about a run that can be known, and found wrong, before any process talks to another."""

import math
from dataclasses import dataclass
from fractions import Fraction

from greedypipe.launch.config.loader import ConfigError
from greedypipe.launch.config.sections import RunConfig
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS, TensorSpec
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.task import Classification
from greedypipe.workers.data.sets.interface import DataInfo
from greedypipe.workers.data.sets.registry import open_data
from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.placement import Placement


@dataclass(frozen=True)
class Plan:
    """A configuration that has been found possible, with what follows from it. Equal in all processes of the run."""

    config: RunConfig
    data: DataInfo
    blueprint: Blueprint
    placement: Placement

    def layout_after(self, stage: int, share: Fraction = Fraction(1)) -> MessageLayout:
        """What travels from `stage` to the next one, over a link for this share of every batch."""
        last = self.placement.blocks_of(stage)[-1]
        precision, task = self.blueprint.precision, self.blueprint.task
        shape = self.blueprint.shapes[last].output
        activation = TensorSpec(ACTIVATION, shape, precision.activation_dtype, precision.channels_last)
        known = {LABELS: task.target, IMAGE: task.input}
        carried = [known[name] for name in self.carried_after(stage)]
        specs = {Kind.TRAIN: (activation, *carried), Kind.EVALUATE: (activation, task.target, task.ensemble)}
        return MessageLayout(math.ceil(self.config.data.batch_size * share), specs, {ACTIVATION: self.config.link.dtype})

    def carried_after(self, stage: int) -> list[str]:
        """Names of what some block after `stage` needs besides the activation."""
        behind = range(self.placement.blocks_of(stage)[-1] + 1, self.blueprint.num_blocks)
        return sorted(set().union(*(self.blueprint.needs(block) for block in behind)))


def make_plan(config: RunConfig, num_processes: int) -> Plan:
    """Checks the configuration against data, network and number of processes; reads no image and downloads nothing.

    Raises:
        ConfigError: Something is missing or impossible.
    """
    try:
        data = open_data(config.data).check()
        blueprint = _draw(config, data)
        steps = blueprint.steps_per_epoch
        placement = Placement.deal(config.placement.replicas, num_processes, blueprint.num_blocks)
        placement.device_of(0, config.placement)
        _check_replicas(config, placement, data)
        _check_isolation(config, placement)
        if config.optimizer.warmup_steps >= blueprint.total_steps:
            raise ValueError(
                f"optimizer.warmup_steps: got {config.optimizer.warmup_steps}, allowed: below the run's "
                f"{blueprint.total_steps} steps ({config.training.epochs} epochs of {steps})"
            )
        for key in ("slow_stage", "fault_stage"):
            if getattr(config.debug, key) >= placement.num_stages:
                got, allowed = getattr(config.debug, key), placement.num_stages
                raise ValueError(f"debug.{key}: got {got}, allowed: below {allowed} stages")
        return Plan(config, data, blueprint, placement)
    except ValueError as error:
        raise ConfigError([str(error)]) from None


def natural_processes(config: RunConfig) -> int:
    """How many processes a run has where nobody says it: a stage for every block, with as many replicas as it is given.

    Raises:
        ConfigError: Data, network or partition are impossible.
    """
    replicas = config.placement.replicas
    try:
        blocks = _draw(config, open_data(config.data).check()).num_blocks
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    return blocks * replicas[0] if len(replicas) == 1 else sum(replicas)


def _draw(config: RunConfig, data: DataInfo) -> Blueprint:
    last = config.data.batch_size if config.data.drop_last else 1
    steps = (data.train_samples - last) // config.data.batch_size + 1
    return Blueprint(config.sections(), Classification(data.input_shape, data.num_classes), steps)


def _check_replicas(config: RunConfig, placement: Placement, data: DataInfo) -> None:
    """Raises ValueError where the replicas of a stage could not share the last batch of an epoch."""
    most = max(placement.replicas)
    if most == 1:
        return
    last = data.train_samples % config.data.batch_size
    if not config.data.drop_last and 0 < last < 2 * most:
        raise ValueError(
            f"placement.replicas: got {most}, but the last batch of an epoch has {last} samples, too few to share; use "
            "data.drop_last=true"
        )


def _check_isolation(config: RunConfig, placement: Placement) -> None:
    """Raises ValueError where a stage could not be started again alone."""
    device = placement.device_of(0, config.placement).type
    if config.faults.policy == "isolate" and device != "cpu":
        raise ValueError(f"faults.policy: got isolate on {device}, allowed: stages on CPUs")
