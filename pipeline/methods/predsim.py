"""Prediction and similarity matching (Nokland & Eidnes, *Training Neural Networks with Local Error Signals*, 1901.06656).

    loss = beta * mse(similarity(projection(h)), similarity(one_hot(labels))) + (1 - beta) * cross_entropy(head(h), labels)

Similarity: cosine between the samples of a batch, rows mean-centred; the projection is a 3 x 3 convolution (std over space
per channel) or a linear map. The loss depends on the composition of the batch. Nothing travels back.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.site import Site


class PredSim(LocalLoss):
    """Similarity matching mixed with cross-entropy."""

    class Config(MethodConfig):
        """Prediction and similarity matching (Nokland & Eidnes)."""

        name: Literal["predsim"] = "predsim"
        beta: float = Field(0.99, ge=0, le=1, description="share of the similarity loss; the rest is cross-entropy")

    def __init__(self, site: Site, beta: float) -> None:
        super().__init__(site)
        shape = site.shapes.output
        self._over_space = len(shape) == 3 and shape[1] * shape[2] > 1
        self.projection: nn.Module
        if len(shape) == 3:
            self.projection = nn.Conv2d(shape[0], shape[0], 3, padding=1, bias=False)
        else:
            self.projection = nn.Linear(shape[-1], shape[-1], bias=False)
        self._num_classes = site.task.outputs
        self._beta = beta

    def loss(self, sample: Sample) -> Tensor:
        projected = self.projection(sample.h).float()
        rows = projected.flatten(2).std(2) if self._over_space else projected.flatten(1)
        similarity = functional.mse_loss(_similarity(rows), _label_similarity(sample.labels, self._num_classes))
        return self._beta * similarity + (1 - self._beta) * self.task.loss(self.head(sample.h), sample.labels)


def _similarity(rows: Tensor) -> Tensor:
    """Cosine similarity [N, N] of the mean-centred rows [N, F]."""
    centred = functional.normalize(rows - rows.mean(1, keepdim=True), dim=1, eps=1e-8)
    with without_autocast(rows.device):
        return centred @ centred.T


def _label_similarity(labels: Tensor, num_classes: int) -> Tensor:
    """`_similarity` of the one-hot labels: 1 for equal classes, -1 / (classes - 1) otherwise."""
    same = labels[:, None] == labels[None, :]
    return torch.where(same, 1.0, -1.0 / (num_classes - 1))
