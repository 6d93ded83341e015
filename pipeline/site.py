"""The place of a block in the network, as its head and its method see it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from greedypipe.pipeline.feedback import WITHOUT_FEEDBACK, Timing
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.task import Task

OF_SIGNALS = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)
OF_TOKENS = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.Embedding)
"""Modules that take their features in the last dimension."""


@dataclass(frozen=True)
class Shapes:
    """Shapes of a block's input and output, without the batch dimension."""

    input: tuple[int, ...]
    output: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Site:
    """The place of one block in the network.

    Attributes:
        index: Position of the block, from 0.
        num_blocks: Number of blocks in the network.
        shapes: Shapes of the block's input and output.
        task: What the network is trained to do; `task.input.shape` is an image's [C, H, W], `task.outputs` the classes.
        layers: Layers of the block.
        earlier_layers: Layers of the blocks before it.
        later_layers: Layers of the blocks behind it.
        classifier: The network's classifier, head of the last block; None in the other blocks.
        make_head: Builds the block's head: the one that `head.name` asks for, or the classifier in the last block. Draws
            the head's initial weights from torch's global generator.
        timing: When the block reads and sends feedback.
        seed: Seed of the run.
        next_site: Gives the next block's place; None in the last block.
    """

    index: int
    num_blocks: int
    shapes: Shapes
    task: Task
    layers: tuple[Layer, ...]
    later_layers: tuple[Layer, ...]
    classifier: Layer | None
    make_head: Callable[["Site"], nn.Module]
    timing: Timing = WITHOUT_FEEDBACK
    seed: int = 0
    next_site: Callable[[], "Site"] | None = None
    earlier_layers: tuple[Layer, ...] = ()

    @property
    def following(self) -> "Site":
        """The place of the next block, which there must be."""
        assert self.next_site is not None, "no block follows the last one"
        return self.next_site()

    @property
    def is_signal(self) -> bool:
        """Whether the activation is a signal [C, T] and no tokens [T, C]: the last module that knows either, in the block or
        before it, is one for signals."""
        if len(self.shapes.output) != 2:
            return False
        layers = (*self.earlier_layers, *self.layers)
        modules = [module for layer in layers for module in layer.module.modules()]
        known = [module for module in modules if isinstance(module, (*OF_SIGNALS, *OF_TOKENS))]
        return bool(known) and isinstance(known[-1], OF_SIGNALS)

    @property
    def is_last(self) -> bool:
        """Whether no block follows."""
        return self.index == self.num_blocks - 1
