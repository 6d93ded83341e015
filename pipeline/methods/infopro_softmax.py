"""InfoPro with cross-entropy (Wang et al., *Revisiting Locally Supervised Learning*, ICLR 2021, 2101.10832).

    loss = image_weight * BCE(decoder(h), image in [0, 1]) + label_weight * cross_entropy(head(h), labels)

Early blocks keep what the image holds, later ones what the labels ask for: both weights go in even steps from the first
block to the last but one. A term of weight 0 is left out; without labels the head is a probe. Nothing travels back; the
image travels forward.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from greedypipe.pipeline.batch import IMAGE, LABELS
from greedypipe.pipeline.heads.decoder import build_pixel_decoder
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ends = tuple[Weight, Weight]


class InfoProSoftmax(LocalLoss):
    """Reconstruction and cross-entropy, weighed by the place of the block."""

    class Config(MethodConfig):
        """InfoPro: reconstruction early and cross-entropy late (Wang et al. 2021)."""

        name: Literal["infopro_softmax"] = "infopro_softmax"
        ixx: Ends = Field(
            (1.0, 0.0), description="weight of the image in the first block and in the last but one; evenly in between"
        )
        ixy: Ends = Field(
            (0.0, 1.0), description="weight of the labels in the first block and in the last but one; evenly in between"
        )

    needs = frozenset({LABELS, IMAGE})

    def __init__(self, site: Site, ixx: Ends, ixy: Ends) -> None:
        super().__init__(site)
        self._image_weight, self._label_weight = _weight_at(site, ixx), _weight_at(site, ixy)
        self.decoder = build_pixel_decoder(site) if self._image_weight else None
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", site.task.mean), ("std", site.task.std)):
            per_channel = torch.tensor(values).view(-1, *[1] * (len(site.task.image_shape) - 1))
            self.register_buffer(name, per_channel, persistent=False)

    @classmethod
    def check(cls, site: Site, **keys: Any) -> None:
        ixx, ixy = keys.get("ixx", (1.0, 0.0)), keys.get("ixy", (0.0, 1.0))
        if not _weight_at(site, ixx) and not _weight_at(site, ixy):
            raise ValueError(f"method.ixx: got 0 for block {site.index}, allowed: above 0 where method.ixy is 0")

    def loss(self, sample: Sample) -> Tensor:
        labels = self.label_loss(sample)
        if self.decoder is None:
            return labels
        # Normalising and undoing it leaves [0, 1] by rounding.
        pixels = (sample.extras[IMAGE] * self.std + self.mean).clamp(0, 1)
        decoded = self.decoder(sample.h).float()
        return self._image_weight * functional.binary_cross_entropy_with_logits(decoded, pixels) + labels

    def label_loss(self, sample: Sample) -> Tensor:
        """What is learned from labels, with its weight, and the probe's loss; 0-dim fp32."""
        if not self._label_weight:
            return self.probe_loss(sample)
        return self._label_weight * self.task.loss(self.head(sample.h), sample.labels)


def _weight_at(site: Site, ends: Ends) -> float:
    ratio = site.index / (site.num_blocks - 2) if site.num_blocks > 2 else 0.0
    return (1 - ratio) * ends[0] + ratio * ends[1]
