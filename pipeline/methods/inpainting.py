"""Inpainting (after Pathak et al., *Context Encoders: Feature Learning by Inpainting*, CVPR 2016, 1604.07379).

    loss = weight * mean over the hole of (decoder(h) - image)^2 + (1 - weight) * cross_entropy(head(h), labels)

`data.pretext=mask` blots out a square of what the network sees. The paper's adversary is left out. At weight 1 the head is a
probe; at 0 every bit is DGL's, on images with a hole. Nothing travels back; whole images and masks travel forward.
"""

from typing import Literal

from torch import Tensor

from greedypipe.pipeline.batch import IMAGE, LABELS, MASK
from greedypipe.pipeline.heads.decoder import build_decoder
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.pretext_loss import PretextConfig, PretextLoss
from greedypipe.pipeline.site import Site


class Inpainting(PretextLoss):
    """Finds what was blotted out of an image."""

    class Config(PretextConfig):
        """Finding what was blotted out of images (after Pathak et al. 2016)."""

        name: Literal["inpainting"] = "inpainting"

    needs = frozenset({LABELS, IMAGE, MASK})

    def __init__(self, site: Site, weight: float) -> None:
        super().__init__(site, weight)
        self.decoder = build_decoder(site, site.shapes.output)

    def pretext_loss(self, sample: Sample) -> Tensor:
        image, hole = sample.extras[IMAGE], sample.extras[MASK][:, None]
        inside: Tensor = hole * (self.decoder(sample.h).float() - image).square()
        return inside.sum() / (hole.sum() * image.shape[1])
