"""Reconstruction of the input image alone (AlonNT/Thesis, "SSL"): the layers learn without labels.

    loss = L1(decoder(h), image) + cross_entropy(head(detach(h)), labels)

The head is a probe. Nothing travels back; the image travels forward to the last block that needs it.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from greedypipe.pipeline.batch import IMAGE, LABELS
from greedypipe.pipeline.heads.decoder import build_decoder
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class ReconstructionOnly(LocalLoss):
    """Image reconstruction; labels reach nothing but the probe."""

    class Config(MethodConfig):
        """Reconstruction of the input image alone: layers learn without labels (SSL)."""

        name: Literal["reconstruction_only"] = "reconstruction_only"

    needs = frozenset({LABELS, IMAGE})

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.decoder = build_decoder(site.shapes.output, site.task.input.shape)

    def loss(self, sample: Sample) -> Tensor:
        image_loss = functional.l1_loss(self.decoder(sample.h).float(), sample.extras[IMAGE])
        return image_loss + self.task.loss(self.head(sample.h.detach()), sample.labels)
