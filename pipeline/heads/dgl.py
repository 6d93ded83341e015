"""The heads of the DGL papers (Belilovsky et al., 1812.11446 and ICML 2020): mlp_aux, mlp_sr and cnn."""

import math
from typing import Literal

from torch import nn

from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.heads.space import Space, space_of
from greedypipe.pipeline.site import Site


class MlpAuxConfig(HeadConfig):
    """DGL's MLP-aux: pooling, then three hidden layers."""

    name: Literal["mlp_aux"] = "mlp_aux"


class MlpSrConfig(HeadConfig):
    """DGL's MLP-SR-aux: pooling, three 1 x 1 convolutions, then three hidden layers."""

    name: Literal["mlp_sr"] = "mlp_sr"


class CnnConfig(HeadConfig):
    """CNN-aux: two 3 x 3 convolutions at full resolution, pooling, linear."""

    name: Literal["cnn"] = "cnn"


def mlp_aux(site: Site) -> nn.Module:
    """DGL's MLP-aux: average pooling to 2 x 2, three hidden layers of width 4C with batch normalisation."""
    space = space_of(site)
    coarse = math.ceil(space.size / 4)
    return nn.Sequential(space.pool_to(coarse), *_pooled_mlp(space, coarse, site.task.outputs))


def mlp_sr(site: Site) -> nn.Module:
    """DGL's MLP-SR-aux (staged spatial resolution): 16 times fewer positions, three 1 x 1 convolutions, then MLP-aux."""
    space = space_of(site)
    convolutions = [space.conv_norm_relu(space.channels, space.channels, 1) for _ in range(3)]
    coarse = math.ceil(space.size / 4)
    return nn.Sequential(space.pool_to(coarse), *convolutions, *_pooled_mlp(space, coarse, site.task.outputs))


def cnn(site: Site) -> nn.Module:
    """CNN-aux (Belilovsky et al., 1812.11446): two 3 x 3 convolutions at full resolution, 2 x 2 pooling, linear."""
    space = space_of(site)
    channels = space.channels
    (pool, flatten), features = space.flat(channels, space.size)
    return nn.Sequential(
        space.conv_norm_relu(channels, channels, 3),
        space.conv_norm_relu(channels, channels, 3),
        pool,
        space.norm(channels),
        flatten,
        nn.Linear(features, site.task.outputs),
    )


def _pooled_mlp(space: Space, size: int, num_classes: int) -> list[nn.Module]:
    to_vector, width = space.flat(space.channels, size)
    hidden = [nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()) for _ in range(3)]
    return [*to_vector, *hidden, nn.Linear(width, num_classes)]
