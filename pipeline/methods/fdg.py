"""Fully decoupled training with delayed gradients (Zhuang et al., TNNLS 2020, 1906.09108).

DDG whose gradients shrink by a factor at every block, so that the oldest ones weigh least:

    gradient_k = shrink * gradient that has come        shrink = 1 is DDG

The published schedule is that of `feedback.delay = [2, ..., 2, 1]`. Travels back and costs: as DDG.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.method import MethodConfig
from greedypipe.pipeline.methods.ddg import DelayedGradients
from greedypipe.pipeline.site import Site


class ShrunkDelayedGradients(DelayedGradients):
    """Delayed gradients that shrink from block to block."""

    class Config(MethodConfig):
        """FDG: delayed gradients that shrink at every block (Zhuang et al. 2020)."""

        name: Literal["fdg"] = "fdg"
        shrink: float = Field(0.5, gt=0, le=1, description="factor of the gradient at every block; 1: none, as ddg")

    def __init__(self, site: Site, shrink: float) -> None:
        super().__init__(site)
        self._shrink = shrink

    def weighted(self, gradient: Tensor) -> Tensor:
        return gradient if self._shrink == 1 else self._shrink * gradient
