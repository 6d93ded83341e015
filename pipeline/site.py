"""What heads and methods are told of the place where they stand."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from greedypipe.pipeline.feedback import WITHOUT_FEEDBACK, Timing
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.task import Task


@dataclass(frozen=True)
class Shapes:
    """Shapes of what goes into a block and of what comes out, without the batch dimension."""

    input: tuple[int, ...]
    output: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Site:
    """The place of one block in the network.

    Attributes:
        index: Position of the block, from 0.
        num_blocks: Blocks of the network.
        shapes: Of the block's activations.
        task: What the network is trained to do; `task.input.shape` is an image's [C, H, W], `task.outputs` the classes.
        layers: The block's own.
        later_layers: Those of the blocks behind it.
        classifier: The network's own, head of the last block; None in the others.
        make_head: Builds the block's head: what `head.name` asks for, the classifier in the last block. Draws the head's
            initial weights from torch's global generator.
        timing: When the block reads and sends feedback.
        seed: The run's.
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

    @property
    def is_last(self) -> bool:
        """Whether no block follows."""
        return self.index == self.num_blocks - 1
