"""A head of few operations: convolutions on a pooled map, shaped like the next layer of the network.

The idea that a head should look like what follows is AugLocal's (Ma et al., ICLR 2024, 2402.17318), which samples several
later layers (`auglocal`); one of them on a map of a quarter of the positions is what our own trials kept (docs/methods.md).
"""

from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.heads.later import channels_of, next_unit, pools_behind
from greedypipe.pipeline.heads.space import Space, space_of
from greedypipe.pipeline.networks.units import scale_channels
from greedypipe.pipeline.site import Site

LARGEST_UNPOOLED = 4
"""Rows of the largest map that is not pooled before the convolutions."""


class ConvConfig(HeadConfig):
    """3 x 3 convolutions on a pooled map, as wide as the network's next convolution, then pooling and linear."""

    name: Literal["conv"] = "conv"
    depth: int = Field(1, ge=1, description="convolutions")
    width: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="factor on their channels, rounded to multiples of 8; 0.5 for few MACs"
    )


def conv(site: Site, depth: int, width: float) -> nn.Module:
    """Average pooling by 2 of maps above 4 x 4, `depth` convolutions with batch normalisation and ReLU, max-pooling by 2
    where the network's next convolution is followed by a pool and more than 2 x 2 is left, pooling to 2 x 2, linear."""
    space = space_of(site)
    shrink, size = pooled_first(space)
    unit = next_unit(site)
    wide = scale_channels(channels_of(unit) if unit else space.channels, width)
    layers = [space.conv_norm_relu(space.channels if number == 0 else wide, wide, 3) for number in range(depth)]
    if unit and pools_behind(site, unit) and size > 2:
        layers, size = [*layers, space.max_pool(2)], size // 2
    to_vector, features = space.flat(wide, size)
    return nn.Sequential(*shrink, *layers, *to_vector, nn.Linear(features, site.task.outputs))


def pooled_first(space: Space) -> tuple[list[nn.Module], int]:
    """Average pooling by 2 where the activation has more than 4 rows, and the rows that are left."""
    return ([space.average_pool(2)], space.size // 2) if space.size > LARGEST_UNPOOLED else ([], space.size)
