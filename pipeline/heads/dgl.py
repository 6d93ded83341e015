"""The heads of the DGL papers (Belilovsky et al., 1812.11446 and ICML 2020): mlp_aux, mlp_sr and cnn."""

import math
from typing import Literal

from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.site import Site


class MlpAuxConfig(HeadConfig):
    """DGL's MLP-aux: pooling, then three hidden layers."""

    name: Literal["mlp_aux"] = "mlp_aux"


class MlpSrConfig(HeadConfig):
    """DGL's MLP-SR-aux: pooling, three 1 x 1 convolutions, then three hidden layers."""

    name: Literal["mlp_sr"] = "mlp_sr"


class CnnConfig(HeadConfig):
    """CNN-aux: two 3 x 3 convolutions at full resolution, pooling, linear."""

    name: Literal["cnn"] = "cnn"


def mlp_aux(site: Site) -> nn.Module:
    """DGL's MLP-aux: average pooling to 2 x 2, three hidden layers of width 4C with batch normalisation."""
    channels, size, _ = site.shapes.output
    coarse = math.ceil(size / 4)
    return nn.Sequential(nn.AdaptiveAvgPool2d(coarse), *_pooled_mlp(channels, coarse, site.task.outputs))


def mlp_sr(site: Site) -> nn.Module:
    """DGL's MLP-SR-aux (staged spatial resolution): 16 times fewer positions, three 1 x 1 convolutions, then MLP-aux."""
    channels, size, _ = site.shapes.output
    convolutions = [_conv_bn_relu(channels, 1) for _ in range(3)]
    coarse = math.ceil(size / 4)
    return nn.Sequential(nn.AdaptiveAvgPool2d(coarse), *convolutions, *_pooled_mlp(channels, coarse, site.task.outputs))


def cnn(site: Site) -> nn.Module:
    """CNN-aux (Belilovsky et al., 1812.11446): two 3 x 3 convolutions at full resolution, 2 x 2 pooling, linear."""
    channels, size, _ = site.shapes.output
    pooled = _pooled_size(size)
    return nn.Sequential(
        _conv_bn_relu(channels, 3),
        _conv_bn_relu(channels, 3),
        nn.AdaptiveAvgPool2d(pooled),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(channels * pooled**2, site.task.outputs),
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
