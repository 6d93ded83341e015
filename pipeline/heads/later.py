"""What follows a block in the network, for heads that are shaped like it. A unit is a layer with convolutions."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.site import Site

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)


def next_unit(site: Site) -> Layer | None:
    """The first layer behind the block that has a convolution; None where there is none."""
    return next(later_units(site), None)


def later_units(site: Site) -> Iterator[Layer]:
    """The layers behind the block that have convolutions."""
    return (layer for layer in site.later_layers if any(True for _ in _convolutions(layer)))


def channels_of(unit: Layer) -> int:
    """Channels of the first convolution of a unit."""
    return int(next(_convolutions(unit)).out_channels)


def output_channels_of(unit: Layer) -> int:
    """Channels that a unit gives: those of its widest convolution, which ends it in all residual layers."""
    return max(int(one.out_channels) for one in _convolutions(unit))


def pools_behind(site: Site, unit: Layer) -> bool:
    """Whether the next layers without parameters behind a unit pool."""
    behind = site.later_layers[site.later_layers.index(unit) + 1 :]
    for layer in behind:
        if layer.has_parameters:
            return False
        if any(isinstance(module, POOLS) for module in layer.module.modules()):
            return True
    return False


def _convolutions(layer: Layer) -> Iterator[Any]:
    return (module for module in layer.module.modules() if isinstance(module, CONVOLUTIONS))
