"""Compute dtype and memory layout of a run."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# Entering torch's autocast costs about ten microseconds even if it does nothing, which counts in a step of a millisecond.
AS_IT_IS: AbstractContextManager[None] = nullcontext()


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """A context outside of autocast, where torch advises to run backward passes."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else AS_IT_IS


@dataclass(frozen=True)
class Precision:
    """How activations are computed, kept and sent.

    Attributes:
        name: "fp32", or "bf16" for torch's autocast; parameters and optimizer state are fp32 in both.
        channels_last: Whether 4-d tensors live in NHWC order.
    """

    name: Literal["fp32", "bf16"]
    channels_last: bool

    @property
    def activation_dtype(self) -> torch.dtype:
        """The dtype of the activations that a block forwards."""
        return torch.bfloat16 if self.name == "bf16" else torch.float32

    def memory_format(self, dims: int) -> torch.memory_format:
        """The layout of a tensor with `dims` dimensions, the batch included."""
        return torch.channels_last if self.channels_last and dims == 4 else torch.contiguous_format

    def autocast(self, device: torch.device, *, caches: bool = True) -> AbstractContextManager[None]:
        """A context in which matrix products and convolutions run in the compute dtype.

        Args:
            caches: Whether a parameter that is used twice is cast once.
        """
        if self.name == "fp32":
            return AS_IT_IS
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=caches)

    def canonical(self, x: Tensor) -> Tensor:
        """`x` in this layout: `x` itself if it already has it.

        A block then sees the same strides, and runs the same kernels, whether its input came over a link or from a block
        in the same process: otherwise the results would not be bit-identical.
        """
        x = x.contiguous(memory_format=self.memory_format(x.dim()))
        if x.dim() != 4:
            return x
        # Where a dimension has size 1, `contiguous` takes either order for both.
        _, channels, height, width = x.shape
        strides = (
            (channels * height * width, 1, channels * width, channels)
            if self.channels_last
            else (channels * height * width, height * width, width, 1)
        )
        return x if x.stride() == strides else x.as_strided(x.shape, strides)
