"""A head of few operations: convolutions on a pooled map, shaped like the next layer of the network.

The idea that a head should look like what follows is AugLocal's (Ma et al., ICLR 2024, 2402.17318), which samples several
later layers; one of them on a map of a quarter of the positions is what our own trials kept (docs/methods.md).
"""

from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.networks.units import scale_channels
from greedypipe.pipeline.site import Site

SMALLEST_POOLED = 4
"""Rows of the smallest map that pooling may leave for the convolutions."""


class ConvConfig(HeadConfig):
    """3 x 3 convolutions on a pooled map, as wide as the network's next convolution, then pooling and linear."""

    name: Literal["conv"] = "conv"
    depth: int = Field(1, ge=1, description="convolutions")
    width: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor on their channels, rounded to multiples of 8")


def conv(site: Site, depth: int, width: float) -> nn.Module:
    """Average pooling 2 x 2 where the map has at least 8 rows, `depth` convolutions with batch normalisation and ReLU,
    pooling to 2 x 2, linear."""
    channels, size, _ = site.shapes.output
    wide = scale_channels(_next_channels(site, channels), width)
    shrink = [nn.AvgPool2d(2)] if size >= 2 * SMALLEST_POOLED else []
    layers = [
        nn.Sequential(
            nn.Conv2d(channels if number == 0 else wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()
        )
        for number in range(depth)
    ]
    pooled = min(2, size)
    return nn.Sequential(
        *shrink,
        *layers,
        nn.AdaptiveAvgPool2d(pooled),
        nn.Flatten(),
        nn.Linear(wide * pooled**2, site.task.outputs),
    )


def _next_channels(site: Site, default: int) -> int:
    """Channels of the next convolution behind the block; the block's own where none follows."""
    modules = (module for layer in site.later_layers for module in layer.module.modules())
    return next((module.out_channels for module in modules if isinstance(module, nn.Conv2d)), default)
