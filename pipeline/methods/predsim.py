"""Prediction and similarity matching (Nokland & Eidnes, *Training Neural Networks with Local Error Signals*, 1901.06656).

    loss = beta * mse(similarity(projection(h)), similarity(one_hot(labels))) + (1 - beta) * cross_entropy(head(h), labels)

Similarity: cosine between the samples of a batch, rows mean-centred; the projection is a 3 x 3 convolution (std over space
per channel) or a linear map. The loss depends on the composition of the batch. Nothing travels back. Its two halves alone
are `pred` and `sim`.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.heads.projection import similarity_projection, varies_over_space
from greedypipe.pipeline.losses import similarity_loss
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class PredSim(LocalLoss):
    """Similarity matching mixed with cross-entropy."""

    class Config(MethodConfig):
        """Prediction and similarity matching (Nokland & Eidnes)."""

        name: Literal["predsim"] = "predsim"
        beta: float = Field(0.99, ge=0, le=1, description="share of the similarity loss; the rest is cross-entropy")

    compares_samples = True

    def __init__(self, site: Site, beta: float) -> None:
        super().__init__(site)
        self._over_space = varies_over_space(site)
        self.projection = similarity_projection(site)
        self._beta = beta

    def loss(self, sample: Sample) -> Tensor:
        projected = self.projection(sample.h)
        similarity = similarity_loss(projected, sample.labels, self.task.outputs, over_space=self._over_space)
        return self._beta * similarity + (1 - self._beta) * self.task.loss(self.head(sample.h), sample.labels)
