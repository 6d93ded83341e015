"""Mixing in the last block's gradient (AlonNT/Thesis, `--is_direct_global --last_gradient_weight`).

    layers and head: (1 - weight) * gradient of the local loss + weight * gradient of the last block's outputs, through head

Without delay both are about the same batch, which is the thesis' rule exactly. With delay the local gradient is that of the
fresh batch, and the last block's is about batch b = t - lag, through the present weights. At weight 0 every bit is DGL's.

Travels back: the gradient of the last block's outputs, [N, classes], passed on by every block. Cost: with delay one more
forward and backward of block and head, and the inputs of `lag` batches. No result with delay has been published.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.ends import OUTPUTS, EndsWithOutputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.kept import INPUT
from greedypipe.pipeline.method import MethodConfig, Sample, Turn
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.site import Site
from greedypipe.pipeline.trunk import frozen_statistics


class LastGradient(EndsWithOutputGradient):
    """The local gradient mixed with that of the network's last outputs."""

    class Config(MethodConfig):
        """Local gradient mixed with that of the last block's outputs (AlonNT/Thesis)."""

        name: Literal["last_gradient"] = "last_gradient"
        weight: float = Field(0.5, ge=0, le=1, description="share of the last block's gradient; the rest is the local one's")

    reach = Reach.LAST
    relays = True
    keeps = frozenset({INPUT})

    def __init__(self, site: Site, weight: float) -> None:
        super().__init__(site)
        self._weight = weight

    def learn(self, turn: Turn) -> Tensor | None:
        if turn.old and turn.feedback:
            turn.back[OUTPUTS] = turn.feedback[OUTPUTS]
        if turn.fresh and turn.fresh is turn.old:
            return self._learn_both(turn.fresh, turn.feedback[OUTPUTS])
        loss = self._learn_own(turn, turn.fresh) if turn.fresh else None
        if turn.old and turn.feedback and self._weight:
            self._learn_late(turn.old, turn.feedback[OUTPUTS])
        return loss

    def _learn_both(self, fresh: Sample, last: Tensor) -> Tensor:
        outputs = self.head(fresh.h).float()
        loss = self.task.loss(outputs, fresh.labels)
        with without_autocast(outputs.device):
            (own,) = torch.autograd.grad(loss, outputs, retain_graph=True)
            outputs.backward(own if self._weight == 0 else (1 - self._weight) * own + self._weight * last)
        return loss.detach()

    def _learn_own(self, turn: Turn, fresh: Sample) -> Tensor:
        loss = self.task.loss(self.head(fresh.h), fresh.labels)
        turn.backward(loss if self._weight == 0 else (1 - self._weight) * loss)
        return loss.detach()

    def _learn_late(self, old: Sample, last: Tensor) -> None:
        # The head has seen the batch when it was fresh: its statistics too are those of fresh batches alone.
        with frozen_statistics(self.head):
            outputs = self.head(old.replay()).float()
        with without_autocast(outputs.device):
            outputs.backward(self._weight * last)
