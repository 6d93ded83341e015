"""TRGL with a weight that finds itself, by Uzawa's algorithm (Karkar et al., NeurIPS 2023, 2309.17357, and their code).

    loss = cross_entropy(head(h), labels) + weight / multiplier * sum over residual layers of mean(residual^2)
    every `every` batches: multiplier += rate * cross_entropy

The multiplier of a block begins at 1 and grows by its own cross-entropy: the worse a block classifies, the sooner its
residuals are free to grow. It stays on the block's device, and in its checkpoints. Nothing travels back. With rate 0 every
bit is TRGL's.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.methods.trgl import TransportRegularised
from greedypipe.pipeline.site import Site


class UzawaRegularised(TransportRegularised):
    """Cross-entropy plus the size of the residual layers, which counts less and less."""

    class Config(TransportRegularised.Config):
        """TRGL with a weight that falls by the block's own loss (Karkar et al. 2023, with Uzawa's algorithm)."""

        name: Literal["trgl_uzawa"] = "trgl_uzawa"  # type: ignore[assignment]
        rate: float = Field(1.0, ge=0, allow_inf_nan=False, description="factor of the loss that the multiplier grows by")
        every: int = Field(50, ge=1, description="batches between two steps of the multiplier")

    unrecorded = "its multiplier grows in some turns alone"
    multiplier: Tensor

    def __init__(self, site: Site, weight: float, early: float, rate: float, every: int) -> None:
        super().__init__(site, weight, early)
        self._rate, self._every = rate, every
        self.register_buffer("multiplier", torch.ones(()))

    @classmethod
    def unshared(cls, is_last: bool, **keys: Any) -> str:
        return "" if is_last else "its multiplier grows by the loss of all rows, of which replicas see a part each"

    def loss(self, sample: Sample) -> Tensor:
        cross_entropy = self.task.loss(self.head(sample.h), sample.labels)
        weight = self._weight / self.multiplier
        if (sample.turn + 1) % self._every == 0:
            self.multiplier += self._rate * cross_entropy.detach()
        return self.with_residuals(cross_entropy, sample, weight)
