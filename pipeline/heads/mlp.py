"""One hidden layer on the flattened activation (AlonNT/Thesis)."""

import math
from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.site import Site


class MlpConfig(HeadConfig):
    """Flattening and one hidden layer."""

    name: Literal["mlp"] = "mlp"
    hidden: int = Field(256, ge=1, description="width of the hidden layer")


def mlp(site: Site, hidden: int) -> nn.Module:
    """Flatten and one hidden layer; no batch normalisation, no pooling."""
    features = math.prod(site.shapes.output)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, site.task.outputs))
