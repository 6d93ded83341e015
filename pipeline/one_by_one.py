"""Blocks that learn one after another: greedy layer-wise training, to which DGL's paper compares itself.

Block k learns from its own part of the stream, [k S, (k + 1) S) for S steps of each. What comes before gets nothing from it,
and what comes after gets the activations of a block that stands still. So the stream is as many times longer as there are
blocks, and learning rates count each block's own steps.
"""

import torch
from torch import Tensor

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block, Learned
from greedypipe.pipeline.feedback import NOTHING, Feedback


class BlockInItsPart(Block):
    """A block that learns in a part of the stream.

    Its turns are all batches of the stream that it has been given. Before its own part it sends zeros, from which no other
    block learns; behind it, the activation in evaluation mode.
    """

    @property
    def total_steps(self) -> int:
        """Batches of the whole stream."""
        return super().total_steps * self.site.num_blocks

    @property
    def own_part(self) -> range:
        """The turns in which it learns."""
        steps = super().total_steps
        return range(self.index * steps, (self.index + 1) * steps)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """As `Block.forward` in its own part of the stream; elsewhere nothing is kept for `learn`."""
        own = self.own_part
        if self.finished or self.turn in own:
            return super().forward(x, batch)
        self.turn += 1
        return self.pass_through(x) if self.turn > own.stop else self._nothing(len(x))

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        """As `Block.learn` in its own part of the stream; elsewhere nothing happens."""
        return Learned(None, NOTHING) if self._fresh is None else super().learn(feedback, drains=drains)

    def _nothing(self, rows: int) -> Tensor:
        zeros = torch.zeros(rows, *self.shapes.output, dtype=self.precision.activation_dtype, device=self.device)
        return self.precision.canonical(zeros)
