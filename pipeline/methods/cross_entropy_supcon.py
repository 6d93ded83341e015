"""Cross-entropy with supervised contrast on top (Khosla et al., NeurIPS 2020, 2004.11362; the sum is greedypipe's own).

    loss = cross_entropy(head(h), labels) + weight * contrast(projection(h), labels)

At weight 0 every bit is DGL's. Nothing travels back. `supcon` is the contrast alone.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.methods.supcon import SupervisedContrast
from greedypipe.pipeline.site import Site


class CrossEntropyAndContrast(SupervisedContrast):
    """Cross-entropy plus the supervised contrastive loss."""

    class Config(SupervisedContrast.Config):
        """Cross-entropy plus supervised contrast (Khosla et al. 2020)."""

        name: Literal["cross_entropy_supcon"] = "cross_entropy_supcon"  # type: ignore[assignment]
        weight: float = Field(0.5, ge=0, allow_inf_nan=False, description="factor of the contrastive loss")

    def __init__(self, site: Site, temperature: float, features: int, weight: float) -> None:
        super().__init__(site, temperature, features)
        self._weight = weight

    def loss(self, sample: Sample) -> Tensor:
        cross_entropy = self.task.loss(self.head(sample.h), sample.labels)
        return cross_entropy + self._weight * self.contrast(sample) if self._weight else cross_entropy
