"""Colourisation (after Zhang et al., *Colorful Image Colorization*, ECCV 2016, 1603.08511).

    loss = weight * L1(decoder(h), coloured image) + (1 - weight) * cross_entropy(head(h), labels)

`data.pretext=grey` takes the colours out of what the network sees. The paper predicts classes of colours; here the colours
themselves are the target. At weight 1 the head is a probe; at 0 every bit is DGL's, on grey images. Nothing travels back;
coloured images travel forward.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from greedypipe.pipeline.batch import COLOURS, LABELS
from greedypipe.pipeline.heads.decoder import build_decoder
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.pretext_loss import PretextConfig, PretextLoss
from greedypipe.pipeline.site import Site


class Colourisation(PretextLoss):
    """Finds the colours of a grey image."""

    class Config(PretextConfig):
        """Finding the colours of grey images (after Zhang et al. 2016)."""

        name: Literal["colourisation"] = "colourisation"

    needs = frozenset({LABELS, COLOURS})

    def __init__(self, site: Site, weight: float) -> None:
        super().__init__(site, weight)
        self.decoder = build_decoder(site, site.shapes.output)

    def pretext_loss(self, sample: Sample) -> Tensor:
        return functional.l1_loss(self.decoder(sample.h).float(), sample.extras[COLOURS])
