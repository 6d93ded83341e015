"""The smallest head: pooling and one linear layer (Nokland & Eidnes, 1901.06656, "pred")."""

import math
from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.heads.space import space_of
from greedypipe.pipeline.site import Site

MAX_LINEAR_FEATURES = 4096
"""Most input features of the linear layer (Nokland & Eidnes: dim_in_decoder)."""


class LinearConfig(HeadConfig):
    """Pooling to at most `features` features, and one linear layer."""

    name: Literal["linear"] = "linear"
    features: int = Field(MAX_LINEAR_FEATURES, ge=1, description="most features that pooling leaves of a map")


def linear(site: Site, features: int) -> nn.Module:
    """Average pooling to at most `features` features, but to one position at least, and one linear layer, zero at the
    start."""
    space = space_of(site)
    most = features // space.channels
    pooled = min(space.size, max(1, math.isqrt(most) if space.dimensions == 2 else most))
    layer = nn.Linear(space.channels * space.positions(pooled), site.task.outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(space.pool_to(pooled), nn.Flatten(), layer)
