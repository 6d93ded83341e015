"""Transport-regularised greedy learning (Karkar et al., *Module-wise Training of Neural Networks via the Minimizing Movement
Scheme*, NeurIPS 2023, 2309.17357): residual layers are to change their input little.

    loss = cross_entropy(head(h), labels) + weight * sum over residual layers of mean(residual^2)

A residual is what a layer adds to its shortcut; the paper writes 1 / (2 tau) for the weight, and takes half the tau in the
first half of the blocks. At weight 0 every bit is DGL's. Nothing travels back. Networks without shortcuts are refused.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class TransportRegularised(LocalLoss):
    """Cross-entropy plus the kinetic energy of the residual layers."""

    class Config(MethodConfig):
        """TRGL: cross-entropy plus the size of all residuals (Karkar et al. 2023)."""

        name: Literal["trgl"] = "trgl"
        weight: float = Field(
            0.5,
            ge=0,
            allow_inf_nan=False,
            description="factor of the residuals' mean squares, the paper's 1 / (2 tau): 0.5 for many blocks, 0.005 for two",
        )
        early: float = Field(
            2.0, ge=0, allow_inf_nan=False, description="factor on that weight in the first half of the blocks"
        )

    def __init__(self, site: Site, weight: float, early: float) -> None:
        super().__init__(site)
        is_early = 2 * (site.index + 1) <= site.num_blocks
        self._weight = weight * early if is_early else weight
        self._branches = tuple(branch for layer in site.layers for branch in layer.branches)

    @classmethod
    def check(cls, site: Site, **keys: Any) -> None:
        if site.index == 0 and not any(layer.residuals for layer in (*site.layers, *site.later_layers)):
            raise ValueError("method.name: got trgl with a network without shortcuts, allowed: residual networks")

    @classmethod
    def looks_inside(cls, **keys: Any) -> bool:
        return True

    def taps(self) -> Sequence[nn.Module]:
        return self._branches if self._weight else ()

    def loss(self, sample: Sample) -> Tensor:
        return self.with_residuals(self.task.loss(self.head(sample.h), sample.labels), sample, self._weight)

    @staticmethod
    def with_residuals(loss: Tensor, sample: Sample, weight: float | Tensor) -> Tensor:
        """The loss plus `weight` times the mean square of every residual."""
        for residual in sample.inner:
            loss = loss + weight * residual.float().square().mean()
        return loss
