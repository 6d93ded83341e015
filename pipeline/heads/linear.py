"""The smallest head: pooling and one linear layer (Nokland & Eidnes, 1901.06656, "pred")."""

import math
from typing import Literal

from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.site import Site

MAX_LINEAR_FEATURES = 4096
"""Most input features of the linear layer (Nokland & Eidnes: dim_in_decoder)."""


class LinearConfig(HeadConfig):
    """Pooling to at most 4,096 features, and one linear layer."""

    name: Literal["linear"] = "linear"


def linear(site: Site) -> nn.Module:
    """Average pooling to at most MAX_LINEAR_FEATURES features and one linear layer, zero at the start."""
    channels, size, _ = site.shapes.output
    pooled = min(size, max(1, math.isqrt(MAX_LINEAR_FEATURES // channels)))
    layer = nn.Linear(channels * pooled * pooled, site.task.outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), layer)
