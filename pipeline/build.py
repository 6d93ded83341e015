"""From configuration sections to blocks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from greedypipe.pipeline.accumulation import make_optimization
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.codecs import Form, build_codec, form_of
from greedypipe.pipeline.execution.recorder import CudaRecorder
from greedypipe.pipeline.feedback import NOTHING, Back, Feedback, FeedbackConfig, Reach, timing_of
from greedypipe.pipeline.heads import build_head, check_head, head_at
from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.method import Method, TaskLoss
from greedypipe.pipeline.methods import (
    build_method,
    check_method,
    looks_inside,
    method_class,
    needs_of,
    unshared,
    wanted_views,
)
from greedypipe.pipeline.networks.drawn import DrawnNetwork, draw_network
from greedypipe.pipeline.networks.layer import Layer, Network
from greedypipe.pipeline.one_by_one import BlockInItsPart
from greedypipe.pipeline.optimization import Optimization, Optimizations
from greedypipe.pipeline.optimizer import OptimizerConfig
from greedypipe.pipeline.partition import Partition, PartitionConfig, make_partition
from greedypipe.pipeline.pools import pool_repeatably
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.sections import Sections
from greedypipe.pipeline.site import Shapes, Site
from greedypipe.pipeline.task import Task

ENDLESS = 2**40
"""Steps per epoch of blocks that never use up their budget."""


class Blueprint:
    """A network cut into blocks: everything known about them before training.

    Building it draws the initial weights, all layers in one stream seeded by the run's seed: they depend neither on
    the partition nor on hosting. Each head has a stream of its own. Blocks train the layers in place.

    Args:
        steps_per_epoch: Training batches of an epoch.
        drawn: The network with its initial weights, if it has been drawn already.
        heads: Section `head` of every layer, where a block has the head of its last layer; None: that of its position.

    Raises:
        ValueError: The network, the partition or their combination is impossible.
    """

    def __init__(
        self,
        sections: Sections,
        task: Task,
        steps_per_epoch: int,
        drawn: DrawnNetwork | None = None,
        heads: Sequence[HeadConfig] | None = None,
    ) -> None:
        self.sections = sections
        self._heads = heads
        self.task = task
        self.steps_per_epoch = steps_per_epoch
        self._drawn = drawn or draw_network(sections.model, task.image_shape, task.outputs, sections.training.seed)
        self.network: Network = self._drawn.network
        self.partition: Partition = make_partition(sections.partition, self.network.layers)
        self.precision = Precision(sections.training.precision, sections.training.channels_last)
        edges = self._drawn.shapes
        self.shapes = [Shapes(edges[block.start], edges[block.stop]) for block in self.partition.ranges()]
        self._method_class = method_class(sections.method)
        self._delays = sections.feedback.delays(self.num_blocks)

    def recut(self, partition: PartitionConfig) -> "Blueprint":
        """The same layers, cut differently: draws nothing and keeps what blocks have learned.

        Raises:
            ValueError: The partition is impossible.
        """
        sections = replace(self.sections, partition=partition)
        return Blueprint(sections, self.task, self.steps_per_epoch, self._drawn, self._heads)

    def redrawn(self) -> "Blueprint":
        """The same cut with the initial weights drawn again, discarding what blocks have learned."""
        return Blueprint(self.sections, self.task, self.steps_per_epoch)

    def for_trials(self) -> "Blueprint":
        """The same cut of copied layers, whose blocks may be trained in any way and for any time: this one's stay as they
        are. They are not compiled, train together, and do not finish. Of another cut with any number of blocks, all have the
        largest delay of feedback, and each the head of the block here that holds its last layer.
        """
        training = self.sections.training.model_copy(update={"compile": "none", "schedule": "together", "graphs": "off"})
        feedback = FeedbackConfig(delay=(max(self.sections.feedback.delay),))
        sections = replace(self.sections, training=training, feedback=feedback)
        ranges = self.partition.ranges()
        heads = [self._head_of(index) for index, layers in enumerate(ranges) for _ in layers]
        return Blueprint(sections, self.task, ENDLESS, self._drawn.copy(), heads)

    @property
    def num_blocks(self) -> int:
        return self.partition.num_blocks

    @property
    def is_one_by_one(self) -> bool:
        """Whether blocks train one after another."""
        return self.sections.training.schedule == "one_by_one"

    @property
    def epochs(self) -> int:
        """Epochs of the stream: those of every block, one after another where blocks train so."""
        return self.sections.training.epochs * (self.num_blocks if self.is_one_by_one else 1)

    @property
    def total_steps(self) -> int:
        """Training batches of the stream."""
        return self.epochs * self.steps_per_epoch

    @property
    def block_steps(self) -> int:
        """Training batches that every block learns from."""
        return self.sections.training.epochs * self.steps_per_epoch

    def check(self) -> None:
        """Checks that every block can learn as it is asked to.

        Raises:
            ValueError: The method or the head cannot learn there; one line.
        """
        compiled, method = self.sections.training.compile, self.sections.method
        if self.num_blocks > 1 and compiled != "none" and looks_inside(method):
            reason = "it looks at activations inside a block"
            raise ValueError(f"training.compile: got {compiled} with method.name={method.name}, allowed: none: {reason}")
        entries = ("head", self.num_blocks - 1), ("optimizer", self.num_blocks), ("auxiliary", self.num_blocks)
        for section, allowed in entries:
            count = len(getattr(getattr(self.sections, section), "by_block", ()))
            if count not in (0, allowed):
                raise ValueError(f"{section}.by_block: got {count} entries, allowed: {allowed}, one for each such block")
        for index in range(self.num_blocks - 1):
            check_head(self._head_of(index), self._site(index))
            check_method(method, self._site(index))

    def layers_of(self, index: int) -> tuple[Layer, ...]:
        return tuple(self.network.layers[position] for position in self.partition.ranges()[index])

    def needs(self, index: int) -> frozenset[str]:
        """Names of what the method of block `index` needs of a batch besides its input."""
        return TaskLoss.needs if index == self.num_blocks - 1 else needs_of(self.sections.method)

    @property
    def wanted_views(self) -> int:
        """Views of every sample that some block needs."""
        return wanted_views(self.sections.method) if self.num_blocks > 1 else 1

    @property
    def has_feedback(self) -> bool:
        """Whether anything travels back."""
        return self._method_class.reach is not Reach.NONE

    @property
    def unrecorded(self) -> str:
        """Why turns of these blocks cannot be recorded and done again; empty where they can."""
        if self.num_blocks == 1:
            return ""
        return "feedback comes and goes" if self.has_feedback else self._method_class.unrecorded

    def records_on(self, device: torch.device) -> bool:
        """Whether turns are recorded there, as `training.graphs` asks; `auto` does not, for now."""
        return self.sections.training.graphs == "on" and device.type == "cuda"

    def unshared(self, index: int) -> str:
        """Why replicas cannot share the batches of block `index`; empty where they can."""
        return unshared(self.sections.method, index == self.num_blocks - 1)

    @property
    def keeps_batches(self) -> bool:
        """Whether blocks run batches again, or keep their graphs, when feedback on them comes."""
        return self.has_feedback and any(self._delays)

    @property
    def answers_batches(self) -> bool:
        """Whether what travels back is about the rows of a batch, as parameters are not."""
        return any(back.per_row for index in range(1, self.num_blocks) for back in self.sends(index))

    def sends(self, index: int) -> tuple[Back, ...]:
        """What block `index` sends to the block before it; nothing from the first."""
        return self._method_class.sends(self._site(index)) if index and self.has_feedback else ()

    def sends_rows(self, index: int) -> bool:
        """Whether what block `index` sends has a row for each sample of a batch."""
        return all(back.per_row for back in self.sends(index))

    def form(self, index: int) -> Form:
        """How the activation of block `index` travels."""
        return form_of(self.sections.codec, self.shapes[index].output, self.precision)

    def zero_feedback(self, index: int, rows: int, device: torch.device) -> Feedback:
        """What block `index` reads in a turn, all zeros, for a batch of so many rows; empty where it reads nothing."""
        if index == self.num_blocks - 1:
            return NOTHING
        return {
            back.name: torch.zeros(
                rows if back.per_row else 1,
                *back.shape,
                dtype=back.dtype or self.precision.activation_dtype,
                device=device,
            )
            for back in self.sends(index + 1)
        }

    def build_block(self, index: int, device: torch.device) -> Block:
        """Moves the block's layers to `device` and gives it method, head, optimizer and schedule."""
        site = self._site(index)
        torch.manual_seed(derive_seed(self.sections.training.seed, "head", index))
        method = build_method(self.sections.method, site)
        for module in (*(layer.module for layer in site.layers), method):
            module.to(device)
            if self.precision.channels_last:
                _to_channels_last(module)
            if device.type == "cuda":
                pool_repeatably(module)
        _forbid_writing_into_input(site.layers)
        optimizations = self._optimizations_of(site, method)
        kind, seed = BlockInItsPart if self.is_one_by_one else Block, self.sections.training.seed
        codec = build_codec(self.sections.codec, site, self.precision, seed, device)
        block = kind(site, method, optimizations, self.precision, seed, device, self.sends_rows(index), codec)
        if self.sections.training.compile == "inductor":
            block.compile()
        if self.records_on(device):
            block.record(self.needs(index), CudaRecorder)
        return block

    def _optimizations_of(self, site: Site, method: Method) -> Optimizations:
        others = {"auxiliary": list(method.auxiliary()), "probe": list(method.probe())}
        elsewhere = {id(one) for parameters in (*others.values(), method.frozen()) for one in parameters}
        trained = site.layers if method.trains_layers else ()
        parameters = [parameter for layer in trained for parameter in layer.module.parameters()]
        main = [one for one in (*parameters, *method.parameters()) if id(one) not in elsewhere]
        configs = {"auxiliary": self.sections.auxiliary or self.sections.optimizer, "probe": self.sections.optimizer}

        def optimization(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimization:
            return make_optimization(config.at_block(site.index), parameters, self.steps_per_epoch, self.block_steps)

        return Optimizations(
            optimization(self.sections.optimizer, main),
            {name: optimization(configs[name], parameters) for name, parameters in others.items() if parameters},
        )

    def _head_of(self, index: int) -> HeadConfig:
        """Section `head` of a block; the last one has the classifier all the same."""
        return self._heads[self.partition.ranges()[index][-1]] if self._heads else head_at(self.sections.head, index)

    def _site(self, index: int) -> Site:
        is_last = index == self.num_blocks - 1
        classifier = self.network.classifier if is_last else None
        make_head: Callable[[Site], nn.Module] = partial(build_head, self._head_of(index))
        return Site(
            index=index,
            num_blocks=self.num_blocks,
            shapes=self.shapes[index],
            task=self.task,
            layers=self.layers_of(index),
            later_layers=self.network.layers[self.partition.ranges()[index].stop :],
            classifier=classifier,
            make_head=(lambda site: self.network.classifier.module) if is_last else make_head,
            timing=timing_of(index, self._method_class.reach, self._delays),
            seed=self.sections.training.seed,
            next_site=None if is_last else partial(self._site, index + 1),
            earlier_layers=self.network.layers[: self.partition.ranges()[index].start],
        )


def _to_channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _forbid_writing_into_input(layers: tuple[Layer, ...]) -> None:
    """A block's input may lie in a slot that is read again, so no in-place module may precede its first weighted one.

    Looking at the very first module alone would miss what works on a view of the input, as after nn.Flatten.
    """
    for layer in layers:
        for module in layer.module.modules():
            if getattr(module, "inplace", False):
                in_place: Any = module
                in_place.inplace = False
            if next(module.parameters(recurse=False), None) is not None:
                return
