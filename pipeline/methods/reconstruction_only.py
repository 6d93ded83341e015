"""Reconstruction of the input image alone (AlonNT/Thesis, "SSL" and "SSL-shift"): the layers learn without labels.

    loss = L1(decoder(h), roll(image, shift)) + cross_entropy(head(detach(h)), labels)

The head is a probe. Shift and tap are those of `reconstruction`. Nothing travels back; the image travels forward to the last
block that needs it.
"""

from typing import Literal

from torch import Tensor

from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.rebuilds_image import RebuildsImage, RebuildsImageConfig


class ReconstructionOnly(RebuildsImage):
    """Image reconstruction; labels reach nothing but the probe."""

    class Config(RebuildsImageConfig):
        """Reconstruction of the input image alone: layers learn without labels (SSL)."""

        name: Literal["reconstruction_only"] = "reconstruction_only"

    def loss(self, sample: Sample) -> Tensor:
        return self.image_loss(sample) + self.probe_loss(sample)
