"""Reconstruction of the input image (AlonNT/Thesis, "DGL + SSL" and, with a shift, "DGL + SSL-shift").

    loss = weight * L1(decoder(h), roll(image, shift)) + (1 - weight) * cross_entropy(head(h), labels)

The thesis rolls the image further from block to block, `shift=[5, 16]`, and decodes the map before the block's pool,
`tap=pre_pool`; its convolutions pad circularly. Nothing travels back; the image travels forward to the last block that needs
it.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.rebuilds_image import RebuildsImage, RebuildsImageConfig, Tap
from greedypipe.pipeline.site import Site


class Reconstruction(RebuildsImage):
    """Image reconstruction mixed with cross-entropy."""

    class Config(RebuildsImageConfig):
        """Reconstruction of the input image, mixed with cross-entropy (DGL + SSL)."""

        name: Literal["reconstruction"] = "reconstruction"
        weight: float = Field(0.5, ge=0, le=1, description="share of the L1 image loss; the rest is cross-entropy")

    def __init__(self, site: Site, shift: tuple[int, int], tap: Tap, weight: float) -> None:
        super().__init__(site, shift, tap)
        self._weight = weight

    def loss(self, sample: Sample) -> Tensor:
        cross_entropy = self.task.loss(self.head(sample.h), sample.labels)
        return self._weight * self.image_loss(sample) + (1 - self._weight) * cross_entropy
