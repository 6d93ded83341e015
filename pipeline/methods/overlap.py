"""Overlapping blocks (Laskin et al., *Parallel Training of Deep Networks with Local Updates*, 2012.03837, section 4.2).

    layers: gradient of the own loss at t, and weight * gradient of the next block's own loss about batch b = t - delay

What goes down is the gradient of the block's own loss alone, so it reaches exactly one block further. At weight 0 every bit
is DGL's; at delay 0 a block follows the sum of both losses exactly.

Travels back: the gradient of each block's input. Cost: with delay one more forward and backward of the layers, and the
inputs of `delay` batches.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.ends import GRADIENT, EndsWithInputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.kept import INPUT
from greedypipe.pipeline.method import MethodConfig, Sample, Turn
from greedypipe.pipeline.site import Site


class Overlap(EndsWithInputGradient):
    """The own loss and that of the next block."""

    class Config(MethodConfig):
        """Overlapping blocks: the own loss and that of the next block (Laskin et al. 2020)."""

        name: Literal["overlap"] = "overlap"
        weight: float = Field(1.0, ge=0, description="factor of the next block's loss")
        first_block: bool = Field(True, description="whether block 0 has a loss of its own; false: the next one's alone")

    reach = Reach.NEXT
    input_gradient = True
    keeps = frozenset({INPUT})

    def __init__(self, site: Site, weight: float, first_block: bool) -> None:
        super().__init__(site)
        self._weight = weight
        self._has_own_loss = first_block or site.index > 0
        self.drains = not self._has_own_loss
        self.fresh_graph = self._has_own_loss

    def probe(self) -> Iterable[nn.Parameter]:
        return () if self._has_own_loss else self.head.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        loss = self._learn_own(turn, turn.fresh) if turn.fresh else None
        if turn.old and turn.feedback and self._weight:
            gradient = turn.feedback[GRADIENT]
            turn.old.pull(gradient if self._weight == 1 else self._weight * gradient)
        return loss

    def _learn_own(self, turn: Turn, fresh: Sample) -> Tensor:
        if not self._has_own_loss:
            return self.learn_probe(fresh)
        loss = self.task.loss(self.head(fresh.h), fresh.labels)
        turn.backward(loss, keep_graph=fresh is turn.old and self._weight > 0)
        if (gradient := fresh.take_input_gradient()) is not None:
            turn.back[GRADIENT] = gradient
        return loss.detach()
