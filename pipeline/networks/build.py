"""The table of networks."""

from collections.abc import Mapping
from types import MappingProxyType

from greedypipe.pipeline.networks.cifar_resnet import CIFAR_RESNETS, CifarResnetConfig
from greedypipe.pipeline.networks.custom import OwnNetwork
from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.plain import BasicCnnConfig, MlpConfig
from greedypipe.pipeline.networks.torchvision_networks import (
    TORCHVISION_RESNETS,
    TORCHVISION_VIT,
    TorchvisionResnetConfig,
    TorchvisionVitConfig,
)
from greedypipe.pipeline.networks.vgg import VGGS, VggConfig
from greedypipe.pipeline.plugins import Family

_VARIANTS: Mapping[str, type[ModelConfig]] = MappingProxyType(
    {
        "basic_cnn": BasicCnnConfig,
        "mlp": MlpConfig,
        **dict.fromkeys(VGGS, VggConfig),
        **dict.fromkeys(CIFAR_RESNETS, CifarResnetConfig),
        **dict.fromkeys(TORCHVISION_RESNETS, TorchvisionResnetConfig),
        TORCHVISION_VIT: TorchvisionVitConfig,
    }
)

MODEL_FAMILY = Family[ModelConfig]("network", _VARIANTS, default="vgg8b", own=OwnNetwork)

NETWORK_NAMES = tuple(_VARIANTS)
