"""Reconstruction of the input image (AlonNT/Thesis, "DGL + SSL").

    loss = weight * L1(decoder(h), image) + (1 - weight) * cross_entropy(head(h), labels)

Nothing travels back; the image travels forward to the last block that needs it.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from greedypipe.pipeline.batch import IMAGE, LABELS
from greedypipe.pipeline.heads.decoder import build_decoder
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class Reconstruction(LocalLoss):
    """Image reconstruction mixed with cross-entropy."""

    class Config(MethodConfig):
        """Reconstruction of the input image, mixed with cross-entropy (DGL + SSL)."""

        name: Literal["reconstruction"] = "reconstruction"
        weight: float = Field(0.5, ge=0, le=1, description="share of the L1 image loss; the rest is cross-entropy")

    needs = frozenset({LABELS, IMAGE})

    def __init__(self, site: Site, weight: float) -> None:
        super().__init__(site)
        self.decoder = build_decoder(site.shapes.output, site.task.input.shape)
        self._weight = weight

    def loss(self, sample: Sample) -> Tensor:
        image_loss = functional.l1_loss(self.decoder(sample.h).float(), sample.extras[IMAGE])
        return self._weight * image_loss + (1 - self._weight) * self.task.loss(self.head(sample.h), sample.labels)
