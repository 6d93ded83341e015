"""From a configuration to a network."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, Field, field_validator

from greedypipe.pipeline.networks.cifar_resnet import CIFAR_RESNETS, build_cifar_resnet
from greedypipe.pipeline.networks.custom import build_custom
from greedypipe.pipeline.networks.layer import Network
from greedypipe.pipeline.networks.plain import build_basic_cnn, build_mlp
from greedypipe.pipeline.networks.torchvision_networks import (
    TORCHVISION_RESNETS,
    TORCHVISION_VIT,
    build_torchvision_resnet,
    build_torchvision_vit,
)
from greedypipe.pipeline.networks.units import Activation
from greedypipe.pipeline.networks.vgg import VGGS, build_vgg

_BUILDERS: Mapping[str, Callable[..., Network]] = MappingProxyType(
    {
        "basic_cnn": build_basic_cnn,
        "mlp": build_mlp,
        **{name: partial(build_vgg, name) for name in VGGS},
        **{name: partial(build_cifar_resnet, name) for name in CIFAR_RESNETS},
        **{name: partial(build_torchvision_resnet, name) for name in TORCHVISION_RESNETS},
        TORCHVISION_VIT: build_torchvision_vit,
    }
)

NETWORK_NAMES = tuple(_BUILDERS)

_CONVOLUTIONAL = ("basic_cnn", *VGGS, *CIFAR_RESNETS)

# Which networks a key has an effect on. The others refuse any value of it but the default.
_USED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "width": _CONVOLUTIONAL,
        "depth": ("mlp",),
        "hidden": ("mlp",),
        "dropout": (*_CONVOLUTIONAL, "mlp"),
        "activation": (*_CONVOLUTIONAL, "mlp"),
    }
)


def _only_with(key: str) -> dict[str, Any]:
    return {"only_with": {"name": _USED_BY[key]}}


class ModelConfig(BaseModel, frozen=True, extra="forbid"):
    """The network that is cut into blocks. A key that the chosen network ignores must keep its default."""

    name: str = Field(
        "vgg8b",
        description=f"{', '.join(NETWORK_NAMES)}, or 'package.module:function' that returns an nn.Sequential",
    )
    width: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        json_schema_extra=_only_with("width"),
        description="basic_cnn, vgg*, resnet20-110 only: factor on all channel counts (rounded to 8s, >= 8)",
    )
    depth: int = Field(4, ge=1, json_schema_extra=_only_with("depth"), description="mlp only: number of hidden layers")
    hidden: int = Field(
        256, ge=1, json_schema_extra=_only_with("hidden"), description="mlp only: features of a hidden layer"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        json_schema_extra=_only_with("dropout"),
        description="not torchvision's or custom: probability, before each layer but pools and the first",
    )
    activation: Activation = Field(
        "relu",
        json_schema_extra=_only_with("activation"),
        description="not torchvision's or custom: non-linearity (leaky_relu: slope 0.01)",
    )

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        _builder(name)
        return name


def build_network(config: ModelConfig, input_shape: tuple[int, int, int], num_classes: int) -> Network:
    """Builds the network on the default device, initialised from torch's global generator: seed it before.

    Args:
        config: Which network, and its size.
        input_shape: [C, H, W] of an image.
        num_classes: Number of logits.

    Raises:
        ValueError: The network is unknown, does not take such images or cannot be imported.
    """
    return _builder(config.name)(input_shape, num_classes, **_options(config))


def _builder(name: str) -> Callable[..., Network]:
    if ":" in name:
        return partial(build_custom, name)
    if name not in _BUILDERS:
        nearest = difflib.get_close_matches(name, NETWORK_NAMES, n=1, cutoff=0)[0]
        raise ValueError(
            f"unknown network {name!r}, nearest is {nearest!r}; "
            f"allowed: {', '.join(NETWORK_NAMES)}, or 'package.module:function'"
        )
    return _BUILDERS[name]


def _options(config: ModelConfig) -> dict[str, Any]:
    """Picks the keys that the network uses."""
    return {key: getattr(config, key) for key, users in _USED_BY.items() if config.name in users}
