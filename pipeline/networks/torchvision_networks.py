"""torchvision's networks cut into layers whose parameters keep torchvision's names."""

import importlib
from collections import OrderedDict
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.layer import Layer, Network

TORCHVISION_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
TORCHVISION_VIT = "vit_b_16"
VIT_PATCH_SIZE = 16


class _PatchEmbedding(nn.Module):
    """[N, 3, H, W] to tokens [N, 1 + H/16 * W/16, 768]: class token and patches, plus position embedding."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.conv_proj: nn.Conv2d = vit.conv_proj
        self.class_token: nn.Parameter = vit.class_token
        self.encoder = nn.ParameterDict({"pos_embedding": vit.encoder.pos_embedding})

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        position: Tensor = self.encoder["pos_embedding"]
        return tokens + position


class _ClassToken(nn.Module):
    """[N, tokens, features] to [N, features]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class TorchvisionResnetConfig(ModelConfig):
    """torchvision's residual networks for ImageNet; images have 3 channels.

    Layers are ``conv1`` (with bn1, relu and maxpool), then each residual block ``layer1.0``, ... .
    """

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet18"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        _require_rgb(self.name, self.image_shape(input_shape))
        resnet = getattr(_import_models(self.name), self.name)(num_classes=num_classes)
        layers = [Layer("conv1", "", _select(resnet, "conv1", "bn1", "relu", "maxpool"))]
        for group in ("layer1", "layer2", "layer3", "layer4"):
            for index, block in enumerate(getattr(resnet, group)):
                last = "bn3" if hasattr(block, "bn3") else "bn2"
                layers.append(Layer(f"{group}.{index}", f"{group}.{index}", block, (last,)))
        children = OrderedDict[str, nn.Module](avgpool=resnet.avgpool, flatten=nn.Flatten(), fc=resnet.fc)
        return Network(tuple(layers), Layer("classifier", "", nn.Sequential(children)))


class TorchvisionVitConfig(ModelConfig):
    """torchvision's vision transformer; square images with 3 channels and a side divisible by 16.

    Layers are ``conv_proj`` (patch embedding), then ``encoder_layer_0`` to ``encoder_layer_11``. Activations between
    layers are tokens, [N, 1 + H/16 * W/16, 768], the class token first. The last normalisation belongs to the
    classifier.
    """

    name: Literal["vit_b_16"] = "vit_b_16"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        _require_rgb(self.name, self.image_shape(input_shape))
        _, rows, columns = self.image_shape(input_shape)
        if rows != columns or rows % VIT_PATCH_SIZE:
            raise ValueError(
                f"network {self.name!r} needs square images with a side divisible by {VIT_PATCH_SIZE}, got {rows}x{columns}"
            )
        vit = _import_models(self.name).vit_b_16(image_size=rows, num_classes=num_classes)
        layers = [Layer("conv_proj", "", _PatchEmbedding(vit))]
        for name, encoder_layer in vit.encoder.layers.named_children():
            layers.append(Layer(name, f"encoder.layers.{name}", encoder_layer, ("dropout", "mlp")))
        children = OrderedDict[str, nn.Module](
            encoder=_select(vit.encoder, "ln"), class_token=_ClassToken(), heads=vit.heads
        )
        return Network(tuple(layers), Layer("classifier", "", nn.Sequential(children)))


def _select(parent: nn.Module, *names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, getattr(parent, name)) for name in names))


def _require_rgb(name: str, input_shape: tuple[int, int, int]) -> None:
    if input_shape[0] != 3:
        raise ValueError(f"network {name!r} needs images with 3 channels, got {input_shape[0]}")


def _import_models(name: str) -> ModuleType:
    # Imported only here, so that the other networks do not depend on it. If torch is of another build, the import fails
    # with a RuntimeError, because torchvision's operators do not register.
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"network {name!r} needs torchvision, whose import failed ({type(error).__name__}: {error}): "
            "install torch and torchvision from the same package index"
        ) from error
