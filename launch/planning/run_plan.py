"""Everything about a run that can be computed, and checked, before its processes communicate."""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.checks import (
    Problems,
    bits_problems,
    codec_problems,
    isolation_problems,
    length_problems,
    link_problems,
    method_problems,
    placement_problems,
    schedule_problems,
)
from greedypipe.launch.planning.recording import recording_problems
from greedypipe.launch.planning.traffic import Edge, edges, layout_back, unknown_needs
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.task import Classification
from greedypipe.pipeline.trial import try_out
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.pretexts.registry import PRETEXTS
from greedypipe.workers.data.sets.registry import open_data
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.placement import Placement, Route


@dataclass(frozen=True)
class Plan:
    """A checked configuration, with everything that follows from it. Equal in all processes of the run.

    A plan with another cut or other replicas is derived from it, with the same data and the same weights.
    """

    config: RunConfig
    data: DataInfo
    blueprint: Blueprint
    placement: Placement

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The messages from every stage but the last to the next one."""
        return edges(self.blueprint, self.placement, self.config.link, self.config.data.batch_size)

    def layout_after(self, stage: int, share: Fraction = Fraction(1)) -> MessageLayout:
        """Layout of the messages from `stage`, which is not the last, over a link that carries this share of every batch."""
        return self.edges[stage].layout(share)

    def carried_after(self, stage: int) -> tuple[str, ...]:
        """Names of the tensors that a training message from `stage` has besides the activation; empty for the last stage."""
        return self.edges[stage].carried if stage < len(self.edges) else ()

    def layout_before(self, stage: int, share: Fraction = Fraction(1)) -> MessageLayout | None:
        """What travels from `stage`, which is not the first, back to the stage before, over a link that carries this share
        of every batch; None: nothing."""
        return layout_back(self.blueprint, self.placement.blocks_of(stage)[0], self.config.data.batch_size, share)

    def routes_before(self, stage: int) -> list[Route]:
        """The routes of feedback from `stage` to the stage before; empty where there is none."""
        first = self.placement.blocks_of(stage)[0]
        if stage == 0 or not self.blueprint.sends(first):
            return []
        return self.placement.routes_before(stage, have_rows=self.blueprint.sends_rows(first))

    def recut(self, boundaries: tuple[str, ...]) -> "Plan":
        """The same network with the same number of blocks, cut at these layers; () cuts evenly.

        Raises:
            ConfigError: Blocks cannot begin at these layers.
        """
        partition = PartitionConfig(blocks=self.config.partition.blocks, boundaries=boundaries)
        try:
            blueprint = self.blueprint.recut(partition)
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        return replace(self, config=self.config.model_copy(update={"partition": partition}), blueprint=blueprint)

    def with_replicas(self, replicas: tuple[int, ...]) -> "Plan":
        """The same cut with these numbers of processes for the stages.

        Raises:
            ConfigError: The replicas of a stage could not share every batch.
        """
        section = self.config.placement.model_copy(update={"replicas": replicas})
        config = self.config.model_copy(update={"placement": section})
        problems = Problems()
        placement = problems.attempt(Placement, replicas, self.blueprint.num_blocks)
        problems.add(placement_problems(config, self.data, placement) if placement else ())
        problems.add(method_problems(config, self.blueprint, placement))
        problems.add(codec_problems(config, self.blueprint, placement))
        problems.add(recording_problems(config, self.blueprint, placement, None))
        problems.refuse()
        assert placement
        return replace(self, config=config, placement=placement)

    def redrawn(self) -> "Plan":
        """The same plan with the initial weights drawn again, after blocks have been trained in place."""
        return replace(self, blueprint=self.blueprint.redrawn())


def make_plan(config: RunConfig, num_processes: int, data: DataInfo | None = None) -> Plan:
    """Checks the configuration against data, network and number of processes; reads no image and downloads nothing.

    Looks the data up and draws the network's weights; derive other plans of the run from this one, to do so only once.

    Args:
        data: What is known of them already; the data themselves are not looked at then.

    Raises:
        ConfigError: Something is missing or impossible; one line for each problem.
    """
    problems = Problems()
    data = data or problems.attempt(open_data(config.data).check)
    blueprint = problems.attempt(_draw, config, data) if data else None
    placement = problems.attempt(Placement.deal, config.placement.replicas, num_processes, config.partition.blocks)
    device = problems.attempt(Placement.device_of, 0, config.placement)
    problems.add(placement_problems(config, data, placement) if placement else ())
    problems.add(isolation_problems(config, device) if device else ())
    problems.add(link_problems(config, device) if device else ())
    problems.add(bits_problems(config, device) if device else ())
    problems.add(length_problems(config, _steps_per_epoch(config, data)) if data else ())
    problems.add(method_problems(config, blueprint, placement) if blueprint else ())
    problems.add(codec_problems(config, blueprint, placement) if blueprint else ())
    problems.add(schedule_problems(config, blueprint) if blueprint else ())
    problems.add(recording_problems(config, blueprint, placement, device) if blueprint else ())
    if blueprint:
        problems.attempt(blueprint.check)
    lacking = list(unknown_needs(blueprint)) if blueprint else []
    problems.add(lacking)
    if blueprint and not lacking:
        problems.attempt(try_out, blueprint)
    problems.refuse()
    assert data and blueprint and placement
    return Plan(config, data, blueprint, placement)


def natural_processes(config: RunConfig) -> int:
    """The default number of processes of a run: one stage per block, with the replicas that `placement.replicas` gives."""
    replicas = config.placement.replicas
    return config.partition.blocks * replicas[0] if len(replicas) == 1 else sum(replicas)


def _draw(config: RunConfig, data: DataInfo) -> Blueprint:
    task = Classification(
        data.input_shape,
        data.num_classes,
        label_smoothing=config.training.label_smoothing,
        mean=data.mean,
        std=data.std,
    )
    task.views, task.extras = config.data.views, PRETEXTS[config.data.pretext].extras(data)
    return Blueprint(config.sections(), task, _steps_per_epoch(config, data))


def _steps_per_epoch(config: RunConfig, data: DataInfo) -> int:
    last = config.data.batch_size if config.data.drop_last else 1
    return (data.train_samples - last) // config.data.batch_size + 1
