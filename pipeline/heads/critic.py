"""The head of local critics (Lee, Kim & Lee, IJCNN 2019, 1805.01128): a convolution at full resolution, and linear."""

from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.heads.space import space_of
from greedypipe.pipeline.site import Site


class CriticConfig(HeadConfig):
    """The published local critic: a 3 x 3 convolution and ReLU at full resolution, flattening, linear."""

    name: Literal["critic"] = "critic"
    channels: int = Field(128, ge=1, description="channels of the convolution")


def critic(site: Site, channels: int) -> nn.Module:
    """A 3 x 3 convolution with bias, ReLU, flattening, linear; no normalisation, no pooling."""
    space = space_of(site)
    return nn.Sequential(
        space.conv(space.channels, channels, 3, bias=True),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(channels * space.positions(space.size), site.task.outputs),
    )
