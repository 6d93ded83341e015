"""Feedback alignment as a property of layers (Lillicrap et al., *Nature Communications* 2016; Nokland 2016).

A convolution or linear layer passes gradients to its input through a fixed random tensor in the place of its weight; the
gradient of the weight itself is exact. With method features_replay it is pipelined feedback alignment, with cross_entropy it
holds inside every block.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.randomness import derive_seed


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(x, feedback)
        ctx.has_bias = bias is not None
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, feedback = ctx.saved_tensors
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        of_x = gradient @ feedback if ctx.needs_input_grad[0] else None
        return of_x, rows.t() @ inputs, rows.sum(0) if ctx.has_bias else None, None


class _Conv2d(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(x, weight, feedback)
        ctx.has_bias, ctx.layer = bias is not None, layer
        return functional.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, feedback = ctx.saved_tensors

        def wanted(through: Tensor, of_x: bool) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
            layer: nn.Conv2d = ctx.layer
            found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
                gradient,
                x,
                through,
                [layer.out_channels] if ctx.has_bias else None,
                list(layer.stride),
                list(layer.padding),
                list(layer.dilation),
                False,
                [0, 0],
                layer.groups,
                [of_x, not of_x, ctx.has_bias and not of_x],
            )
            return found

        of_x = wanted(feedback, True)[0] if ctx.needs_input_grad[0] else None
        _, of_weight, of_bias = wanted(weight, False)
        return of_x, of_weight, of_bias, None, None


class RandomLinear(nn.Linear):
    """A linear layer whose gradients go back through `feedback`, [out, in]."""

    feedback: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return _Linear.apply(*_cast(x, self.weight, self.bias, self.feedback))  # type: ignore[no-any-return]


class RandomConv2d(nn.Conv2d):
    """A convolution whose gradients go back through `feedback`, of the weight's shape."""

    feedback: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return _Conv2d.apply(*_cast(x, self.weight, self.bias, self.feedback), self)  # type: ignore[no-any-return]


def randomise(layers: tuple[Layer, ...], seed: int) -> None:
    """Gives every convolution and linear layer a random tensor to pass gradients back through: as its weight is initialised,
    from (seed, layer) alone. Changes the modules in place; leaves torch's generator as it is.

    Raises:
        ValueError: A convolution has padding by name or another mode than zeros.
    """
    for layer in layers:
        for name, module in layer.module.named_modules():
            if isinstance(module, nn.Conv2d):
                if isinstance(module.padding, str) or module.padding_mode != "zeros":
                    raise ValueError(f"model.backward: got random, but layer {layer.name} does not pad with zeros by number")
                module.__class__ = RandomConv2d
            elif isinstance(module, nn.Linear):
                module.__class__ = RandomLinear
            else:
                continue
            generator = torch.Generator().manual_seed(derive_seed(seed, "feedback", layer.name, name))
            bound = 1 / math.sqrt(module.weight[0].numel())
            feedback = torch.empty_like(module.weight, requires_grad=False).uniform_(-bound, bound, generator=generator)
            module.register_buffer("feedback", feedback, persistent=False)


def _cast(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """All in the compute dtype where autocast is on, which does not see into a function of our own."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x, *others
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), *(None if one is None else one.to(dtype) for one in others)
