"""The residual networks for small images of He et al., "Deep Residual Learning" (CVPR 2016), section 4.2."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.networks.layer import Layer, Network
from greedypipe.pipeline.networks.units import Activation, ConvolutionalConfig, Padding, make_activation, scale_channels

# The n of 6n + 2: basic blocks per stage of equal resolution.
CIFAR_RESNETS: Mapping[str, int] = MappingProxyType({"resnet20": 3, "resnet32": 5, "resnet56": 9, "resnet110": 18})


class _ZeroPadShortcut(nn.Module):
    """He et al.'s option A: every second pixel, and zeros in the added channels; no parameters."""

    def __init__(self, added_channels: int, stride: int) -> None:
        super().__init__()
        self.added_channels = added_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.added_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activation after the sum, dropout before the first convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, dropout: float, activation: Activation, padding: Padding
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False, padding_mode=padding)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False, padding_mode=padding)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activation = make_activation(activation)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else _ZeroPadShortcut(out_channels - in_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.activation(self.bn1(self.conv1(self.dropout(x))))
        residual = self.bn2(self.conv2(residual))
        activated: Tensor = self.activation(residual + self.shortcut(x))
        return activated


class CifarResnetConfig(ConvolutionalConfig):
    """Residual networks for 32x32 images, of depth 6n + 2 (He et al.).

    Layers are ``conv1``, then ``layer1.0``, ...: 3n blocks of 16, 32, 64 channels. Dropout is applied at the start of
    each block's residual branch (never to a shortcut) and before the classifier's linear map.

    Shortcuts that change the shape are option A (subsample, pad with zeros), as in He et al. and in the
    published DGL code (ResNet-110, K = 2). InfoPro's code, whose tables give DGL for K up to 16, uses a 1x1
    convolution with batch normalisation instead: 2,752 parameters more. Convolutions are initialised as in both:
    normal, with variance 2 / fan-out.
    """

    name: Literal["resnet20", "resnet32", "resnet56", "resnet110"] = "resnet110"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        channels = scale_channels(16, self.width)
        layers = [_stem(self.image_shape(input_shape)[0], channels, self.activation, self.padding)]
        for stage, stage_channels in enumerate((16, 32, 64), start=1):
            out_channels = scale_channels(stage_channels, self.width)
            for index in range(CIFAR_RESNETS[self.name]):
                stride = 2 if stage > 1 and index == 0 else 1
                block = BasicBlock(channels, out_channels, stride, self.dropout, self.activation, self.padding)
                layers.append(Layer(f"layer{stage}.{index}", f"layer{stage}.{index}", block, ("bn2",)))
                channels = out_channels
        for layer in layers:
            layer.module.apply(_initialise_convolution)
        return Network(tuple(layers), _classifier(channels, num_classes, self.dropout))


def _stem(in_channels: int, channels: int, activation: Activation, padding: Padding) -> Layer:
    children = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False, padding_mode=padding),
        bn1=nn.BatchNorm2d(channels),
        activation=make_activation(activation),
    )
    return Layer("conv1", "", nn.Sequential(children))


def _classifier(channels: int, num_classes: int, dropout: float) -> Layer:
    children = OrderedDict[str, nn.Module](
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(dropout) if dropout else nn.Identity(),
        fc=nn.Linear(channels, num_classes),
    )
    return Layer("classifier", "", nn.Sequential(children))


def _initialise_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * math.prod(module.kernel_size)
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
