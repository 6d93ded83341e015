"""Supervised contrast (Khosla et al., *Supervised Contrastive Learning*, NeurIPS 2020, 2004.11362) as a local loss.

    loss = contrast(projection(h), labels) + cross_entropy(head(detach(h)), labels)

Every row is drawn to those of its class in the batch and away from all others: the larger the batch the better (published:
1,024 and more). The head is a probe. Nothing travels back. Mixed with cross-entropy it is `cross_entropy_supcon`.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.heads.projection import contrast_projection
from greedypipe.pipeline.losses import supervised_contrast
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class SupervisedContrast(LocalLoss):
    """Supervised contrastive loss; the head is a probe."""

    class Config(MethodConfig):
        """Supervised contrastive loss alone; the head is a probe (Khosla et al. 2020)."""

        name: Literal["supcon"] = "supcon"
        temperature: float = Field(0.1, gt=0, allow_inf_nan=False, description="of the similarities; less is stricter")
        features: int = Field(128, ge=1, description="outputs of the projection that samples are compared in")

    compares_samples = True

    def __init__(self, site: Site, temperature: float, features: int) -> None:
        super().__init__(site)
        self.projection = contrast_projection(site, features)
        self._temperature = temperature

    def contrast(self, sample: Sample) -> Tensor:
        """The contrastive loss of a batch, 0-dim fp32."""
        return supervised_contrast(self.projection(sample.h), sample.labels, self._temperature)

    def loss(self, sample: Sample) -> Tensor:
        return self.contrast(sample) + self.probe_loss(sample)
