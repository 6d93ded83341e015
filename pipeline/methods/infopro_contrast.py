"""InfoPro with supervised contrast (Wang et al., *Revisiting Locally Supervised Learning*, ICLR 2021, 2101.10832).

    loss = image_weight * BCE(decoder(h), image in [0, 1]) + label_weight * contrast(projection(h), labels)
           + cross_entropy(head(detach(h)), labels)

As `infopro_softmax`, with the contrastive loss of `supcon` through the paper's own head; the head is a probe. Nothing
travels back; the image travels forward.
"""

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.heads import HEADS
from greedypipe.pipeline.losses import supervised_contrast
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.methods.infopro_softmax import Ends, InfoProSoftmax
from greedypipe.pipeline.site import Site


class InfoProContrast(InfoProSoftmax):
    """Reconstruction and supervised contrast, weighed by the place of the block."""

    class Config(InfoProSoftmax.Config):
        """InfoPro: reconstruction early and supervised contrast late (Wang et al. 2021)."""

        name: Literal["infopro_contrast"] = "infopro_contrast"  # type: ignore[assignment]
        temperature: float = Field(0.07, gt=0, allow_inf_nan=False, description="of the similarities; less is stricter")
        features: int = Field(128, ge=1, description="outputs of the projection that samples are compared in")

    compares_samples = True

    def __init__(self, site: Site, ixx: Ends, ixy: Ends, temperature: float, features: int) -> None:
        super().__init__(site, ixx, ixy)
        to_features = replace(site, task=site.task.with_outputs(features))
        self.projection = HEADS["infopro"].build(to_features, hidden=128) if self._label_weight else None
        self._temperature = temperature

    def label_loss(self, sample: Sample) -> Tensor:
        probe = self.probe_loss(sample)
        if self.projection is None:
            return probe
        rows = self.projection(sample.h)
        return self._label_weight * supervised_contrast(rows, sample.labels, self._temperature) + probe
