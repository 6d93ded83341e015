"""InfoPro's head "1c2f" (Wang et al., ICLR 2021, 2101.10832): one convolution, two fully connected layers."""

from typing import Literal

from pydantic import Field
from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.heads.later import later_units, output_channels_of
from greedypipe.pipeline.heads.space import space_of
from greedypipe.pipeline.site import Site


class InfoProConfig(HeadConfig):
    """InfoPro's 1c2f: a 3 x 3 convolution as wide as the network's next wider one, mean over space, one hidden layer."""

    name: Literal["infopro"] = "infopro"
    hidden: int = Field(128, ge=1, description="width of the hidden layer")


def infopro(site: Site, hidden: int) -> nn.Module:
    """A 3 x 3 convolution with batch normalisation and ReLU, mean over space, hidden layer with ReLU, linear.

    The convolution has the channels of the next one in the network that is wider than the activation, and stride 2 then
    (published: 16 to 32, 32 to 64); the activation's own where none is wider.
    """
    space = space_of(site)
    widths = (output_channels_of(unit) for unit in later_units(site))
    wide = next((width for width in widths if width > space.channels), space.channels)
    stride = 2 if wide > space.channels and space.size > 1 else 1
    return nn.Sequential(
        space.conv_norm_relu(space.channels, wide, 3, stride=stride),
        space.pool_to(1),
        nn.Flatten(),
        nn.Linear(wide, hidden),
        nn.ReLU(),
        nn.Linear(hidden, site.task.outputs),
    )
