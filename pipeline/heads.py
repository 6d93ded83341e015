"""Auxiliary heads: the small network that turns a block's activation into logits for its local loss."""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, Field
from torch import Tensor, nn

from greedypipe.pipeline.plugins import Family, Own

MAX_LINEAR_FEATURES = 4096
"""Features that the pooled `linear` head may see (Nokland & Eidnes: dim_in_decoder)."""


class HeadConfig(BaseModel, frozen=True, extra="forbid"):
    """The auxiliary head of every block but the last, whose head is the network's own classifier."""

    name: str = Field(description="the head")


class MlpHeadConfig(HeadConfig):
    """Flatten and one hidden layer, without batch normalisation or pooling."""

    name: Literal["mlp"] = "mlp"
    hidden: int = Field(256, ge=1, description="features of the hidden layer")


class MapHeadConfig(HeadConfig):
    """linear: pooling and one linear layer; mlp_aux, mlp_sr and cnn: those of DGL."""

    name: Literal["linear", "mlp_aux", "mlp_sr", "cnn"] = "mlp_sr"


class OwnHead(Own, HeadConfig):
    """Your own head: a function of activation_shape, num_classes and your options that returns an nn.Module."""

    keywords = ("activation_shape", "num_classes")


HEADS = Family[HeadConfig](
    "head",
    {
        "linear": MapHeadConfig,
        "mlp": MlpHeadConfig,
        "mlp_aux": MapHeadConfig,
        "mlp_sr": MapHeadConfig,
        "cnn": MapHeadConfig,
    },
    default="mlp_sr",
    own=OwnHead,
)


def build_head(config: HeadConfig, activation_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Builds a head for activations [N, *activation_shape]; its output is logits [N, num_classes].

    Shapes are [C, H, W] for maps, [T, C] for tokens (averaged over T first) and [C] for vectors, which the
    convolutional heads treat as a 1 x 1 map. A user's own head gets the shape as it is.
    """
    if isinstance(config, OwnHead):
        return config.call(activation_shape=activation_shape, num_classes=num_classes)
    if len(activation_shape) == 2:
        return nn.Sequential(MeanOverTokens(), build_head(config, activation_shape[1:], num_classes))
    if isinstance(config, MlpHeadConfig):
        return _mlp(math.prod(activation_shape), config.hidden, num_classes)
    if len(activation_shape) == 1:
        return nn.Sequential(
            nn.Unflatten(1, (activation_shape[0], 1, 1)), _MAP_HEADS[config.name](activation_shape[0], 1, num_classes)
        )
    channels, height, _ = activation_shape
    return _MAP_HEADS[config.name](channels, height, num_classes)


class MeanOverTokens(nn.Module):
    """[N, T, C] -> [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def _linear(channels: int, size: int, num_classes: int) -> nn.Module:
    """Average pooling to at most MAX_LINEAR_FEATURES features and one linear layer, zero at the start ("pred")."""
    pooled = min(size, max(1, math.isqrt(MAX_LINEAR_FEATURES // channels)))
    linear = nn.Linear(channels * pooled * pooled, num_classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), linear)


def _mlp(features: int, hidden: int, num_classes: int) -> nn.Module:
    """Flatten and one hidden layer, no batch normalisation, no pooling (AlonNT/Thesis)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))


def _mlp_aux(channels: int, size: int, num_classes: int) -> nn.Module:
    """DGL's MLP-aux: average pooling to 2 x 2, three hidden layers of width 4C with batch normalisation."""
    coarse = math.ceil(size / 4)
    return nn.Sequential(nn.AdaptiveAvgPool2d(coarse), *_pooled_mlp(channels, coarse, num_classes))


def _mlp_sr(channels: int, size: int, num_classes: int) -> nn.Module:
    """DGL's MLP-SR-aux (staged spatial resolution): 16 times fewer positions, three 1 x 1 convolutions, then MLP-aux."""
    convolutions = [_conv_bn_relu(channels, 1) for _ in range(3)]
    coarse = math.ceil(size / 4)
    return nn.Sequential(nn.AdaptiveAvgPool2d(coarse), *convolutions, *_pooled_mlp(channels, coarse, num_classes))


def _cnn(channels: int, size: int, num_classes: int) -> nn.Module:
    """CNN-aux (Belilovsky et al., 1812.11446): two 3 x 3 convolutions at full resolution, 2 x 2 pooling, linear."""
    pooled = _pooled_size(size)
    return nn.Sequential(
        _conv_bn_relu(channels, 3),
        _conv_bn_relu(channels, 3),
        nn.AdaptiveAvgPool2d(pooled),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(channels * pooled**2, num_classes),
    )


def _pooled_mlp(channels: int, size: int, num_classes: int) -> list[nn.Module]:
    pooled = _pooled_size(size)
    width = channels * pooled**2
    hidden = [nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()) for _ in range(3)]
    return [nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), *hidden, nn.Linear(width, num_classes)]


def _pooled_size(size: int) -> int:
    # The papers pool to 2 x 2; a 1 x 1 map pooled "up" to that would only repeat every feature four times.
    return min(2, size)


def _conv_bn_relu(channels: int, kernel: int) -> nn.Module:
    convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


_MAP_HEADS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "linear": _linear,
    "mlp_aux": _mlp_aux,
    "mlp_sr": _mlp_sr,
    "cnn": _cnn,
}
