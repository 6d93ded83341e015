"""Rotation (Gidaris et al., *Unsupervised Representation Learning by Predicting Image Rotations*, ICLR 2018, 1803.07728).

    loss = weight * cross_entropy(angle_head(h), quarter turns) + (1 - weight) * cross_entropy(head(h), labels)

`data.pretext=rotation` turns the images. The angles have a head of their own, of the same kind, with four outputs. At weight
1 the head of the classes is a probe; at 0 every bit is DGL's, on turned images. Nothing travels back; the angles travel
forward.
"""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from greedypipe.pipeline.batch import LABELS, ROTATION
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.pretext_loss import PretextConfig, PretextLoss
from greedypipe.pipeline.site import Site

ANGLES = 4


class Rotation(PretextLoss):
    """Tells by how many quarter turns an image was turned."""

    class Config(PretextConfig):
        """Predicting by how many quarter turns images were turned (Gidaris et al. 2018)."""

        name: Literal["rotation"] = "rotation"

    needs = frozenset({LABELS, ROTATION})

    def __init__(self, site: Site, weight: float) -> None:
        super().__init__(site, weight)
        self._angles = site.task.with_outputs(ANGLES)
        self.angle_head = site.make_head(replace(site, task=self._angles))

    def pretext_loss(self, sample: Sample) -> Tensor:
        return self._angles.loss(self.angle_head(sample.h), sample.extras[ROTATION])
