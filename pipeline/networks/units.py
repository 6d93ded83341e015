"""The units of the plain feed-forward networks: convolution, pooling, fully connected layer, classifier.

Convolutions have no bias, which the batch normalisation behind them would cancel. Weights start as torch
initialises them. Dropout is applied at the start of each unit with parameters but the network's first, and of the
classifier: a head sees the activation before dropout, as in Nokland & Eidnes (ICML 2019), even behind a pool.
"""

from collections import OrderedDict
from typing import Literal, NamedTuple

from pydantic import Field
from torch import nn

from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.layer import Layer

Activation = Literal["relu", "leaky_relu"]
Padding = Literal["zeros", "circular"]

POOL = "M"


class UnitsConfig(ModelConfig):
    """Networks made of the units of this file."""

    dropout: float = Field(
        0.0, ge=0, lt=1, description="probability of dropout before each layer with weights, except the first"
    )
    activation: Activation = Field("relu", description="non-linearity after each layer (leaky_relu: slope 0.01)")


class ConvolutionalConfig(UnitsConfig):
    """Networks whose channels can be scaled."""

    width: float = Field(
        1.0,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="factor on every channel count, rounded to multiples of 8, at least 8",
    )
    padding: Padding = Field(
        "zeros", description="what convolutions see beyond the edge; circular: the opposite edge, for shifted reconstruction"
    )


def scale_channels(channels: int, width: float) -> int:
    """Multiplies a channel count by `width`, to the nearest multiple of 8 (half-way: upwards), at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def make_activation(activation: Activation) -> nn.Module:
    """Builds the non-linearity (leaky_relu: slope 0.01). It works in place, so it must not come first in a layer."""
    return nn.ReLU(inplace=True) if activation == "relu" else nn.LeakyReLU(0.01, inplace=True)


class _Kinds(NamedTuple):
    """Modules of one number of dimensions of space."""

    conv: type[nn.Conv1d | nn.Conv2d]
    norm: type[nn.BatchNorm1d | nn.BatchNorm2d]
    max_pool: type[nn.MaxPool1d | nn.MaxPool2d]


SIGNALS = _Kinds(nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d)
IMAGES = _Kinds(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)


def conv_layer(
    name: str,
    kinds: _Kinds,
    channels: tuple[int, int],
    *,
    kernel_size: int,
    dropout: float,
    activation: Activation,
    padding: Padding,
) -> Layer:
    """Builds dropout, convolution (stride 1, same size), batch normalisation and activation."""
    border = kernel_size // 2
    module = _sequence(
        dropout=_dropout(dropout),
        conv=kinds.conv(*channels, kernel_size, padding=border, bias=False, padding_mode=padding),
        bn=kinds.norm(channels[1]),
        activation=make_activation(activation),
    )
    return Layer(name, name, module)


def linear_layer(
    name: str,
    in_features: int,
    out_features: int,
    *,
    batch_norm: bool,
    dropout: float,
    activation: Activation,
) -> Layer:
    """Builds dropout, flattening of [N, ...], linear map, optional batch normalisation, and activation."""
    module = _sequence(
        dropout=_dropout(dropout),
        flatten=nn.Flatten(),
        linear=nn.Linear(in_features, out_features),
        bn=nn.BatchNorm1d(out_features) if batch_norm else None,
        activation=make_activation(activation),
    )
    return Layer(name, name, module)


def linear_classifier(in_features: int, num_classes: int, *, dropout: float) -> Layer:
    """Builds dropout, flattening of [N, ...] and a linear map, whose parameters are ``classifier.*``."""
    module = _sequence(
        dropout=_dropout(dropout),
        flatten=nn.Flatten(),
        classifier=nn.Linear(in_features, num_classes),
    )
    return Layer("classifier", "", module)


def plan_layers(
    plan: str,
    input_shape: tuple[int, ...],
    *,
    kernel_size: int,
    width: float,
    dropout: float,
    activation: Activation,
    padding: Padding,
) -> tuple[list[Layer], tuple[int, ...]]:
    """Builds the layers of a plan like ``"64 M 128 M"``: channels of convolutions, M for max-pooling by 2; for images
    [C, H, W] in two dimensions, for signals [C, T] in one.

    A pool whose input is smaller than 2 is omitted, so that every plan suits small images (8x8 digits have room for three
    pools). Layers are numbered as in the plan, whether or not a pool was omitted.

    Returns:
        The layers ``conv1``, ``pool1``, ... (a pool is a layer of its own) and the last output's [C, H, W] or [C, T].
    """
    layers: list[Layer] = []
    channels, *sizes = input_shape
    kinds = IMAGES if len(sizes) == 2 else SIGNALS
    num_convs = num_pools = 0
    for entry in plan.split():
        if entry == POOL:
            num_pools += 1
            if min(sizes) >= 2:
                layers.append(Layer(f"pool{num_pools}", f"pool{num_pools}", kinds.max_pool(2)))
                sizes = [size // 2 for size in sizes]
        else:
            num_convs += 1
            in_channels, channels = channels, scale_channels(int(entry), width)
            layers.append(
                conv_layer(
                    f"conv{num_convs}",
                    kinds,
                    (in_channels, channels),
                    kernel_size=kernel_size,
                    dropout=dropout if layers else 0.0,
                    activation=activation,
                    padding=padding,
                )
            )
    return layers, (channels, *sizes)


def _dropout(probability: float) -> nn.Module | None:
    return nn.Dropout(probability) if probability else None


def _sequence(**children: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, child) for name, child in children.items() if child is not None))
