"""AugLocal's head (Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks*, ICLR 2024, 2402.17318):
fresh copies of a few of the layers that follow, fewer of them the later the block."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.conv import pooled_first
from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.heads.later import later_units, output_channels_of
from greedypipe.pipeline.heads.space import Space, space_of
from greedypipe.pipeline.networks.cifar_resnet import BasicBlock
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.networks.units import scale_channels
from greedypipe.pipeline.site import Site


class AugLocalConfig(HeadConfig):
    """AugLocal: units like some of the later layers, evenly sampled, then mean over space and linear."""

    name: Literal["auglocal"] = "auglocal"
    depth: int = Field(5, ge=1, description="units of the first block's head")
    pyramid: float = Field(
        0.5, ge=0, le=1, description="share of the depth that is lost, evenly, up to the last block but one; 0: none"
    )
    width: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor on their channels, rounded to multiples of 8")
    pooled: bool = Field(True, description="average-pool maps above 4 x 4 by 2 first, which the paper does not")


def auglocal(site: Site, depth: int, pyramid: float, width: float, pooled: bool) -> nn.Module:
    """The units, mean over space, with a single unit batch normalisation, linear.

    A residual layer gives a residual unit, another one a 3 x 3 convolution with batch normalisation and ReLU; stride 2 where
    the channels grow. Where no convolution follows there is no unit.
    """
    space = space_of(site)
    shrink, size = pooled_first(space) if pooled else ([], space.size)
    channels, layers = space.channels, list[nn.Module]()
    for unit in sampled(site, depth_at(site, depth, pyramid)):
        wide = scale_channels(output_channels_of(unit), width)
        stride = 2 if wide > channels and size > 1 else 1
        layers.append(_fresh(space, unit, channels, wide, stride))
        channels, size = wide, -(-size // stride)
    norm = [nn.BatchNorm1d(channels)] if len(layers) == 1 else []
    return nn.Sequential(*shrink, *layers, space.pool_to(1), nn.Flatten(), *norm, nn.Linear(channels, site.task.outputs))


def depth_at(site: Site, depth: int, pyramid: float) -> int:
    """Units of a block's head: from `depth` in the first block evenly down to (1 - pyramid) depth + pyramid in the last but
    one, rounded."""
    ratio = pyramid * site.index / (site.num_blocks - 2) if site.num_blocks > 2 else 0.0
    return max(1, round(depth * (1 - ratio) + ratio))


def sampled(site: Site, count: int) -> Sequence[Layer]:
    """So many of the later units, at even distances, the last one included; all where there are no more."""
    units = tuple(later_units(site))
    if count >= len(units):
        return units
    here = sum(layer.has_parameters for layer in (*site.earlier_layers, *site.layers)) - 1
    # Python rounds halves to even numbers, so the place in the whole network counts.
    return [units[round(here + len(units) / count * number) - here - 1] for number in range(1, count + 1)]


def _fresh(space: Space, unit: Layer, before: int, after: int, stride: int) -> nn.Module:
    """A unit with weights of its own."""
    if unit.residuals and space.dimensions == 2 and after >= before:
        return BasicBlock(before, after, stride, 0.0, "relu", "zeros")
    return space.conv_norm_relu(before, after, 3, stride=stride)
