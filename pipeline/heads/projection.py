"""What losses that compare samples see of an activation."""

from torch import nn

from greedypipe.pipeline.heads.head import MeanOverTokens
from greedypipe.pipeline.heads.space import has_space, space_of
from greedypipe.pipeline.site import Site


def similarity_projection(site: Site) -> nn.Module:
    """Activation to one of its shape: a 3 x 3 convolution of maps, one of width 3 of signals, else a linear map; no bias
    (Nokland & Eidnes, 1901.06656)."""
    if has_space(site):
        space = space_of(site)
        return space.conv(space.channels, space.channels, 3)
    width = site.shapes.output[-1]
    return nn.Linear(width, width, bias=False)


def varies_over_space(site: Site) -> bool:
    """Whether the activation is a map or a signal of several positions."""
    return has_space(site) and any(size > 1 for size in site.shapes.output[1:])


def contrast_projection(site: Site, features: int) -> nn.Module:
    """Activation to [N, features]: the mean over positions or tokens, a hidden layer of the activation's width, linear
    (Khosla et al., 2004.11362)."""
    shape = site.shapes.output
    pooling: list[nn.Module] = [MeanOverTokens()] if len(shape) == 2 else []
    width = shape[-1]
    if has_space(site):
        pooling, width = [space_of(site).pool_to(1), nn.Flatten()], shape[0]
    return nn.Sequential(*pooling, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, features))
