"""Local losses: a head with a criterion, the only source of gradients that a block ever sees.

A loss declares through `needs_image` what it wants besides activation and labels; messages carry what the losses
downstream declare, no more.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.decoder import build_decoder
from greedypipe.pipeline.heads import HeadConfig, build_head


class LossConfig(BaseModel, frozen=True, extra="forbid"):
    """The local loss of every block but the last, which always learns by cross-entropy through the classifier."""

    name: Literal["cross_entropy", "predsim", "reconstruction", "reconstruction_only", "none"] = Field(
        "cross_entropy",
        description="cross_entropy: DGL; predsim: Nokland & Eidnes; reconstruction: mixed with cross-entropy; "
        "reconstruction_only: no labels; none: the block stays random, the lower bound",
    )
    beta: float = Field(
        0.99,
        ge=0,
        le=1,
        description="predsim only: share of the similarity loss",
        json_schema_extra={"only_with": {"name": "predsim"}},
    )
    reconstruction_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="reconstruction only: share of the L1 image loss",
        json_schema_extra={"only_with": {"name": "reconstruction"}},
    )


class LocalLoss(nn.Module, ABC):
    """Head and criterion of one block; its parameters are trained with the block's.

    Attributes:
        head: Activation [N, ...] -> logits [N, classes]. For losses without labels it is a probe: it learns from the
            detached activation, so that every block has an accuracy.
        needs_image: Whether `forward` wants the network's input images.
        trains_layers: Whether any gradient reaches the block's layers.
    """

    needs_image = False
    trains_layers = True

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @abstractmethod
    def forward(self, activation: Tensor, labels: Tensor, image: Tensor | None) -> Tensor:
        """Returns the loss, 0-dim fp32.

        Args:
            activation: [N, ...], with its graph.
            labels: Class indices [N], int64.
            image: Augmented, normalised input [N, C, H, W], fp32; only where `needs_image`.
        """


class CrossEntropy(LocalLoss):
    """Mean cross-entropy through the head: DGL's objective (Belilovsky et al., ICML 2020)."""

    def forward(self, activation: Tensor, labels: Tensor, image: Tensor | None) -> Tensor:
        return _cross_entropy(self.head(activation), labels)


class PredSim(LocalLoss):
    """beta * similarity matching + (1 - beta) * cross-entropy (Nokland & Eidnes, 1901.06656, "predsim").

    Similarity matching: mean squared difference between the cosine similarities, over the batch, of a 3 x 3
    convolution of the activation (std over space per channel, rows mean-centred) and of the one-hot labels. It depends
    on the composition of the batch.
    """

    def __init__(self, head: nn.Module, activation_shape: tuple[int, ...], num_classes: int, beta: float) -> None:
        super().__init__(head)
        self._over_space = len(activation_shape) == 3 and activation_shape[1] * activation_shape[2] > 1
        self.projection: nn.Module
        if len(activation_shape) == 3:
            self.projection = nn.Conv2d(activation_shape[0], activation_shape[0], 3, padding=1, bias=False)
        else:
            self.projection = nn.Linear(activation_shape[-1], activation_shape[-1], bias=False)
        self._num_classes = num_classes
        self._beta = beta

    def forward(self, activation: Tensor, labels: Tensor, image: Tensor | None) -> Tensor:
        projected = self.projection(activation).float()
        rows = projected.flatten(2).std(2) if self._over_space else projected.flatten(1)
        similarity = functional.mse_loss(_similarity(rows), _label_similarity(labels, self._num_classes))
        return self._beta * similarity + (1 - self._beta) * _cross_entropy(self.head(activation), labels)


class Reconstruction(LocalLoss):
    """weight * L1(decoder(activation), image) + (1 - weight) * cross-entropy (AlonNT/Thesis, "DGL + SSL")."""

    needs_image = True

    def __init__(self, head: nn.Module, decoder: nn.Module, weight: float) -> None:
        super().__init__(head)
        self.decoder = decoder
        self._weight = weight

    def forward(self, activation: Tensor, labels: Tensor, image: Tensor | None) -> Tensor:
        assert image is not None
        reconstruction = functional.l1_loss(self.decoder(activation).float(), image)
        return self._weight * reconstruction + (1 - self._weight) * _cross_entropy(self.head(activation), labels)


class ReconstructionOnly(LocalLoss):
    """L1(decoder(activation), image): the block learns without labels; its head is a probe (AlonNT/Thesis, "SSL")."""

    needs_image = True

    def __init__(self, head: nn.Module, decoder: nn.Module) -> None:
        super().__init__(head)
        self.decoder = decoder

    def forward(self, activation: Tensor, labels: Tensor, image: Tensor | None) -> Tensor:
        assert image is not None
        reconstruction = functional.l1_loss(self.decoder(activation).float(), image)
        return reconstruction + _cross_entropy(self.head(activation.detach()), labels)


class Untrained(LocalLoss):
    """The block keeps its random initialisation; its head is a probe. The lower bound of AlonNT/Thesis."""

    trains_layers = False

    def forward(self, activation: Tensor, labels: Tensor, image: Tensor | None) -> Tensor:
        return _cross_entropy(self.head(activation), labels)


def build_local_loss(
    loss: LossConfig,
    head: HeadConfig,
    activation_shape: tuple[int, ...],
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> LocalLoss:
    """Builds the loss of a block that is not the last, drawing its initialisation from the global generator."""
    module = build_head(head, activation_shape, num_classes)
    match loss.name:
        case "predsim":
            return PredSim(module, activation_shape, num_classes, loss.beta)
        case "reconstruction":
            return Reconstruction(module, build_decoder(activation_shape, image_shape), loss.reconstruction_weight)
        case "reconstruction_only":
            return ReconstructionOnly(module, build_decoder(activation_shape, image_shape))
        case "none":
            return Untrained(module)
        case _:
            return CrossEntropy(module)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels)


def _similarity(rows: Tensor) -> Tensor:
    """Cosine similarity [N, N] of the mean-centred rows [N, F]."""
    centred = functional.normalize(rows - rows.mean(1, keepdim=True), dim=1, eps=1e-8)
    with torch.autocast(rows.device.type, enabled=False):
        return centred @ centred.T


def _label_similarity(labels: Tensor, num_classes: int) -> Tensor:
    """`_similarity` of the one-hot labels: 1 for equal classes, -1 / (classes - 1) otherwise."""
    same = labels[:, None] == labels[None, :]
    return torch.where(same, 1.0, -1.0 / (num_classes - 1))
