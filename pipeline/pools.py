"""Adaptive average pooling for GPUs, whose own backward pass adds up in any order and is refused where bits must repeat."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


def pool_repeatably(module: nn.Module) -> None:
    """Has all adaptive average pools of a module compute by other operations, with the same numbers up to the last bits.

    The modules, their parameters and names stay. Not meant for CPUs, where torch's own operation is faster and repeatable.
    """
    for pool in module.modules():
        if isinstance(pool, KINDS):
            pooling: Any = pool
            pooling.forward = partial(averaged, output_size=pool.output_size)


def averaged(x: Tensor, output_size: int | tuple[int | None, ...] | None) -> Tensor:
    """What adaptive average pooling gives for `output_size`: [N, C, *space] -> [N, C, *output_size].

    Equal windows are one operation; others, which may overlap, are averaged one by one.
    """
    if isinstance(output_size, int | None):
        output_size = (output_size,) * (x.dim() - 2)
    spans = [_windows(have, have if want is None else want) for have, want in zip(x.shape[2:], output_size, strict=True)]
    if all(len(span) == 1 for span in spans):
        return x.mean(tuple(range(2, x.dim())), keepdim=True)
    sizes = [span[0].stop for span in spans]
    if all(have == len(span) * size for have, span, size in zip(x.shape[2:], spans, sizes, strict=True)):
        return functional.avg_pool2d(x, sizes) if len(sizes) == 2 else functional.avg_pool1d(x, sizes)
    for dimension, span in enumerate(spans, start=2):
        leading = (slice(None),) * dimension
        x = torch.cat([x[(*leading, window)].mean(dimension, keepdim=True) for window in span], dimension)
    return x


def _windows(have: int, want: int) -> list[slice]:
    return [slice(number * have // want, -(-(number + 1) * have // want)) for number in range(want)]
