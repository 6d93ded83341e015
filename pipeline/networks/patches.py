"""Networks that see an image as overlapping patches, each on its own (van den Oord et al., 1807.03748; Löwe 2019)."""

from dataclasses import replace

from torch import Tensor, nn

from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.layer import Layer, Network


class CutPatches(nn.Module):
    """[N, C, H, W] to square patches, half a side apart, row by row: [N, patches, C, side, side].

    `grid` has the numbers of rows and columns of patches.
    """

    def __init__(self, side: int, height: int, width: int) -> None:
        super().__init__()
        self._side = side
        self.grid = height * 2 // side - 1, width * 2 // side - 1

    def forward(self, images: Tensor) -> Tensor:
        side, step = self._side, self._side // 2
        patches = images.unfold(2, side, step).unfold(3, side, step)
        return patches.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).contiguous()


class PerPatch(nn.Module):
    """Applies a module for [N, ...] to every patch of [N, patches, ...]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        each: Tensor = self.module(x.flatten(0, 1))
        apart: Tensor = each.unflatten(0, x.shape[:2])
        return apart


class MeanOverPatches(nn.Module):
    """[N, patches, ...] to [N, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def build_in_patches(model: ModelConfig, input_shape: tuple[int, ...], num_classes: int) -> Network:
    """Builds the network for a patch, applies each of its layers to all patches, and the classifier to their mean.

    The first layer cuts the image. Names of parameters have `module.` behind the layer's own.

    Raises:
        ValueError: One line: patches do not cover such images.
    """
    side, shape = model.patches, " x ".join(map(str, input_shape))
    if len(input_shape) != 3:
        raise ValueError(f"model.patches: got {side} for samples {shape}, allowed: 0: only images have patches")
    channels, height, width = input_shape
    if side % 2 or any(length < side or (length - side) % (side // 2) for length in (height, width)):
        raise ValueError(
            f"model.patches: got {side} for images {shape}, allowed: even numbers of which half divides height and width"
        )
    inner = model.build((channels, side, side), num_classes)
    first, *others = inner.layers
    layers = (
        _inside(first, nn.Sequential(CutPatches(side, height, width), PerPatch(first.module)), "1.module."),
        *(_inside(layer, PerPatch(layer.module), "module.") for layer in others),
    )
    return Network(layers, replace(inner.classifier, module=nn.Sequential(MeanOverPatches(), inner.classifier.module)))


def _inside(layer: Layer, module: nn.Module, place: str) -> Layer:
    """The layer with a module that holds its own one at a place."""
    return replace(layer, module=module, residuals=tuple(place + name for name in layer.residuals))
