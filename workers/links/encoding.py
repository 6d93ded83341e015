"""How a tensor is stored in a slot: unchanged, or in fewer bytes. An encoding is chosen once, with the layout."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from greedypipe.pipeline.batch import TensorSpec

LEVELS = 255
"""Steps between the smallest and the largest value of a channel in 8 bits."""


def view(spec: TensorSpec, memory: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    """`memory` (uint8, of the right size) as `dtype` in the spec's shape and layout with `rows` rows."""
    if spec.channels_last and len(spec.shape) == 3:
        channels, height, width = spec.shape
        return memory.view(dtype).view(rows, height, width, channels).permute(0, 3, 1, 2)
    return memory.view(dtype).view(rows, *spec.shape)


class EncodedTensor:
    """A tensor that is stored encoded in a slot: valid while the slot is, decoded by `to`.

    Decoding is left to the reader, so that an unread batch costs nothing and only the encoded bytes are copied to a
    device.
    """

    device = None
    """None: it never counts as being on a device, so it is always moved, and so decoded."""

    def __init__(self, parts: "tuple[Tensor | EncodedTensor, ...]", decode: Callable[..., Tensor]) -> None:
        self._parts = parts
        self._decode = decode

    def to(self, device: torch.device) -> Tensor:
        """A new tensor on `device`, in the dtype from before encoding; blocks until the slot may be filled again."""
        return self._decode(*(part.to(device) for part in self._parts))


class Field(Protocol):
    """The place of one tensor in one slot, its views made once."""

    def write(self, tensor: Tensor) -> None:
        """Copies a tensor of the spec's shape and dtype, with at least one row, into the slot."""

    def read(self) -> Tensor | EncodedTensor:
        """The stored tensor, a view of the slot."""


class Encoding(Protocol):
    """One way of storing a tensor as bytes."""

    def size_bytes(self, spec: TensorSpec, rows: int) -> int:
        """Bytes of `rows` rows, before alignment."""

    def field(self, spec: TensorSpec, memory: Tensor, rows: int) -> Field:
        """The field at `memory` (uint8, CPU, at least `size_bytes` long)."""


class Same:
    """Unchanged bits; read in place."""

    def size_bytes(self, spec: TensorSpec, rows: int) -> int:
        return math.prod(spec.shape) * spec.dtype.itemsize * rows

    def field(self, spec: TensorSpec, memory: Tensor, rows: int) -> "SameField":
        return SameField(view(spec, memory[: self.size_bytes(spec, rows)], rows, spec.dtype))


class SameField:
    """A view of the slot."""

    def __init__(self, memory: Tensor) -> None:
        self._view = memory

    def write(self, tensor: Tensor) -> None:
        self._view.copy_(tensor)

    def read(self) -> Tensor:
        return self._view


class Bf16:
    """Rounded to bfloat16: half of fp32's bytes."""

    def size_bytes(self, spec: TensorSpec, rows: int) -> int:
        return math.prod(spec.shape) * torch.bfloat16.itemsize * rows

    def field(self, spec: TensorSpec, memory: Tensor, rows: int) -> "Bf16Field":
        return Bf16Field(spec, view(spec, memory[: self.size_bytes(spec, rows)], rows, torch.bfloat16))


class Bf16Field:
    """A bfloat16 view of the slot."""

    def __init__(self, spec: TensorSpec, memory: Tensor) -> None:
        self._view = memory
        self._encoded = EncodedTensor((memory,), lambda codes: codes.to(spec.dtype, copy=True))

    def write(self, tensor: Tensor) -> None:
        self._view.copy_(tensor)

    def read(self) -> EncodedTensor:
        return self._encoded


class Int8:
    """8 bits per value, with a scale and an offset (fp32) for each channel of a batch: x = offset + scale * code.

    Codes run from the channel's smallest value (0) to its largest (255), so that behind a ReLU none is wasted on
    negative numbers and 0 stays exactly 0. The error is at most half a scale. A channel with a value that is not finite
    is decoded to NaN, which the next loss reveals.
    """

    def size_bytes(self, spec: TensorSpec, rows: int) -> int:
        return 2 * self._row_bytes(spec) + math.prod(spec.shape) * rows

    def field(self, spec: TensorSpec, memory: Tensor, rows: int) -> "Int8Field":
        row = self._row_bytes(spec)
        scale, offset = (memory[start : start + row].view(torch.float32) for start in (0, row))
        codes = view(spec, memory[2 * row : self.size_bytes(spec, rows)], rows, torch.uint8)
        return Int8Field(spec, scale, offset, codes)

    @staticmethod
    def _row_bytes(spec: TensorSpec) -> int:
        return spec.channels * torch.float32.itemsize


class Int8Field:
    """Scale, offset and codes of one tensor."""

    def __init__(self, spec: TensorSpec, scale: Tensor, offset: Tensor, codes: Tensor) -> None:
        self._along = (1, spec.channels, 1, 1) if len(spec.shape) == 3 else (1,) * len(spec.shape) + (spec.channels,)
        self._others = tuple(dim for dim, size in enumerate(self._along) if size == 1)
        self._scale, self._offset, self._codes = scale, offset, codes
        self._dtype = spec.dtype
        self._encoded = EncodedTensor((scale, offset, codes), self._decode)

    def write(self, tensor: Tensor) -> None:
        if not len(tensor):
            return  # a replica's part of a small batch may be empty: it has no range
        x = tensor.float()
        smallest, largest = x.amin(self._others), x.amax(self._others)
        scale = (largest - smallest) / LEVELS
        self._offset.copy_(smallest.view(-1))
        self._scale.copy_(scale.view(-1))
        levels_per_unit = torch.where(scale > 0, 1 / scale, 0.0).view(self._along)
        # Subtract first: this is exact where the range is small compared with the values. The copy truncates, and LEVELS
        # plus a half truncates to LEVELS whatever its last bits are.
        self._codes.copy_((x - smallest.view(self._along)).mul_(levels_per_unit).add_(0.5))

    def read(self) -> EncodedTensor:
        return self._encoded

    def _decode(self, scale: Tensor, offset: Tensor, codes: Tensor) -> Tensor:
        return codes.float().mul_(scale.view(self._along)).add_(offset.view(self._along)).to(self._dtype)


ENCODINGS: dict[str, Encoding] = {"same": Same(), "bf16": Bf16(), "int8": Int8()}
