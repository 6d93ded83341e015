"""Shapes of the activations between layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from greedypipe.pipeline.networks.layer import Layer


def activation_shapes(layers: Sequence[Layer], input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns the shape, without N, of the output of every layer.

    Runs the layers on one black image in evaluation mode: changes no statistics, and draws random numbers only for lazy
    layers, which get their weights here. (The meta device would cost more: its first convolution makes torch import its
    decompositions, for a second or two.)

    Args:
        layers: Consecutive layers.
        input_shape: Shape of the first layer's input, without N.

    Raises:
        ValueError: A layer does not accept the output of the one before it, or does not return a tensor.
    """
    shapes: list[tuple[int, ...]] = []
    parameters = (parameter for layer in layers for parameter in layer.module.parameters())
    x = torch.zeros(1, *input_shape, device=next((parameter.device for parameter in parameters), None))
    for layer in layers:
        layer.module.eval()
        try:
            with torch.no_grad():
                x = layer.module(x)
        except RuntimeError as error:
            shape = tuple(x.shape[1:])
            reason = " ".join(str(error).split())
            raise ValueError(f"layer {layer.name!r} does not accept input of shape {shape}: {reason}") from error
        if not isinstance(x, Tensor):
            raise ValueError(f"layer {layer.name!r} returned a {type(x).__name__}, allowed: a tensor")
        layer.module.train()
        shapes.append(tuple(x.shape[1:]))
    return shapes
