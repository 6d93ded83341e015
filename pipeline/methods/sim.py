"""Similarity matching alone (Nokland & Eidnes, *Training Neural Networks with Local Error Signals*, 1901.06656, "sim").

    loss = mse(similarity(projection(h)), similarity(one_hot(labels))) + cross_entropy(head(detach(h)), labels)

One half of `predsim`; the head is a probe. The published last layer scales its cross-entropy by 0.01, ours does not. Nothing
travels back.
"""

from typing import Literal

from torch import Tensor

from greedypipe.pipeline.heads.projection import similarity_projection, varies_over_space
from greedypipe.pipeline.losses import similarity_loss
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class Sim(LocalLoss):
    """Similarity matching; the head is a probe."""

    class Config(MethodConfig):
        """Similarity matching alone, a half of predsim (Nokland & Eidnes)."""

        name: Literal["sim"] = "sim"

    compares_samples = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._over_space = varies_over_space(site)
        self.projection = similarity_projection(site)

    def loss(self, sample: Sample) -> Tensor:
        projected = self.projection(sample.h)
        similarity = similarity_loss(projected, sample.labels, self.task.outputs, over_space=self._over_space)
        return similarity + self.probe_loss(sample)
