"""From configuration sections to blocks."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import nn

from greedypipe.pipeline.block import Block, Shapes
from greedypipe.pipeline.heads import HeadConfig
from greedypipe.pipeline.losses import CrossEntropy, LocalLoss, LossConfig, build_local_loss
from greedypipe.pipeline.networks.build import ModelConfig
from greedypipe.pipeline.networks.drawn import DrawnNetwork, draw_network
from greedypipe.pipeline.networks.layer import Layer, Network
from greedypipe.pipeline.optimizer import OptimizerConfig, build_optimizer, build_schedule
from greedypipe.pipeline.partition import Partition, PartitionConfig, make_partition
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.randomness import derive_seed


class TrainingConfig(BaseModel, frozen=True, extra="forbid"):
    """Length, seed and numerics of a run."""

    epochs: int = Field(10, ge=1, description="epochs of every block, counted in its own steps")
    seed: int = Field(0, ge=0, description="initialisation, shuffling, augmentation and dropout follow from it")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: torch's autocast; activations travel in bf16")
    channels_last: bool = Field(True, description="keep 4-d tensors in NHWC order")
    compile: Literal["none", "inductor"] = Field(
        "none", description="inductor: torch.compile every block's layers and head, at its first batch (needs g++)"
    )


@dataclass(frozen=True)
class Sections:
    """The configuration sections that blocks are built from."""

    model: ModelConfig
    partition: PartitionConfig
    head: HeadConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    training: TrainingConfig


@dataclass(frozen=True)
class Task:
    """What the network is to learn: shape of the images, number of classes, training batches per epoch."""

    input_shape: tuple[int, int, int]
    num_classes: int
    steps_per_epoch: int


class Blueprint:
    """A network, cut: all that is known of every block before any of them is trained.

    Building it draws the initial weights, all layers in one stream seeded by the run's seed: they depend neither on
    the partition nor on who hosts which block. Each head has a stream of its own. Blocks train the layers in place.

    Args:
        drawn: The network, where it has been drawn before.

    Raises:
        ValueError: The network, the partition or their combination is impossible.
    """

    def __init__(self, sections: Sections, task: Task, drawn: DrawnNetwork | None = None) -> None:
        self.sections = sections
        self.task = task
        self._drawn = drawn or draw_network(sections.model, task.input_shape, task.num_classes, sections.training.seed)
        self.network: Network = self._drawn.network
        self.partition: Partition = make_partition(sections.partition, self.network.layers)
        self.precision = Precision(sections.training.precision, sections.training.channels_last)
        edges = self._drawn.shapes
        self.shapes = [Shapes(edges[block.start], edges[block.stop]) for block in self.partition.ranges()]

    def recut(self, partition: PartitionConfig) -> "Blueprint":
        """Another cut of the very same layers: nothing is drawn, and what blocks have learned stays learned.

        Raises:
            ValueError: The partition is impossible.
        """
        return Blueprint(replace(self.sections, partition=partition), self.task, self._drawn)

    def redrawn(self) -> "Blueprint":
        """The same cut with the initial weights again, whatever blocks have learned since; draws them."""
        return Blueprint(self.sections, self.task)

    def eager_copy(self) -> "Blueprint":
        """The same cut of layers of its own, which torch.compile leaves alone: to try out what must not be changed."""
        training = self.sections.training.model_copy(update={"compile": "none"})
        return Blueprint(replace(self.sections, training=training), self.task, self._drawn.copy())

    @property
    def num_blocks(self) -> int:
        return self.partition.num_blocks

    @property
    def total_steps(self) -> int:
        """Steps of every block over the run."""
        return self.sections.training.epochs * self.task.steps_per_epoch

    def layers_of(self, index: int) -> tuple[Layer, ...]:
        return tuple(self.network.layers[position] for position in self.partition.ranges()[index])

    def needs_image(self, index: int) -> bool:
        """Whether block `index` wants the input image beside its activation."""
        return index < self.num_blocks - 1 and self.sections.loss.name in ("reconstruction", "reconstruction_only")

    def build_block(self, index: int, device: torch.device) -> Block:
        """Moves the block's layers to `device` and gives it head, optimizer and schedule."""
        layers = self.layers_of(index)
        loss = self._build_loss(index)
        assert loss.needs_image == self.needs_image(index)
        for module in (*(layer.module for layer in layers), loss):
            module.to(device)
            if self.precision.channels_last:
                _to_channels_last(module)
        _forbid_writing_into_input(layers)
        parameters = [parameter for layer in layers for parameter in layer.module.parameters() if loss.trains_layers]
        config = self.sections.optimizer
        optimizer = build_optimizer(config, [*parameters, *loss.parameters()])
        block = Block(
            index,
            layers=layers,
            classifier=self.network.classifier if index == self.num_blocks - 1 else None,
            loss=loss,
            optimizer=optimizer,
            schedule=build_schedule(config, optimizer, self.task.steps_per_epoch, self.total_steps),
            precision=self.precision,
            shapes=self.shapes[index],
            clip_norm=config.clip_norm,
            steps=self.total_steps,
            seed=self.sections.training.seed,
            device=device,
        )
        if self.sections.training.compile == "inductor":
            block.compile()
        return block

    def _build_loss(self, index: int) -> LocalLoss:
        if index == self.num_blocks - 1:
            return CrossEntropy(self.network.classifier.module)
        torch.manual_seed(derive_seed(self.sections.training.seed, "head", index))
        return build_local_loss(
            self.sections.loss, self.sections.head, self.shapes[index].output, self.task.input_shape, self.task.num_classes
        )


def _to_channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _forbid_writing_into_input(layers: tuple[Layer, ...]) -> None:
    """A block's input may lie in a slot that is read again, so nothing may be in place before its first weighted module.

    Looking at the very first module alone would miss what works on a view of the input, as after nn.Flatten.
    """
    for layer in layers:
        for module in layer.module.modules():
            if getattr(module, "inplace", False):
                module.inplace = False
            if next(module.parameters(recurse=False), None) is not None:
                return
