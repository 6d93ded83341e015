"""What travels over a link: a fixed header and tensors, packed into one preallocated slot of bytes."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

ALIGNMENT_BYTES = 64
HEADER_WORDS = 8
"""kind, batch_id, step, rows, layout code, then reserved; int64 each."""
HEADER_BYTES = HEADER_WORDS * 8


class Kind(IntEnum):
    """What a message means to the stage that reads it."""

    TRAIN = 0
    """A training batch."""
    EVALUATE = 1
    """A batch of the held-out part; `batch_id` counts within the pass."""
    EVALUATED = 2
    """The end of an evaluation pass; `batch_id` is the epoch that it followed. No tensors."""
    END = 3
    """The end of the stream. No tensors."""


@dataclass(frozen=True)
class Message:
    """One message. Its tensors may lie in a slot: they are valid until the message is released.

    Attributes:
        batch_id: Number of the mini-batch in the stream of stage 0; see `Kind` for the other meanings.
        step: Optimizer steps that the sender's last block had done when it computed the activation.
        tensors: By name, in the layout's order, all with the batch as first dimension.
    """

    kind: Kind
    batch_id: int
    step: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Samples in the batch; 0 without tensors."""
        return next((tensor.shape[0] for tensor in self.tensors.values()), 0)

    def to(self, device: torch.device) -> "Message":
        """The message with its tensors on `device`: itself where they are there already.

        Blocks until they are copied: the slot that they lie in may be filled again as soon as it is released.
        """
        if all(tensor.device == device for tensor in self.tensors.values()):
            return self
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Message(self.kind, self.batch_id, self.step, moved)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, shape without the batch dimension, dtype and memory layout."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool = False

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def view(self, memory: Tensor, rows: int) -> Tensor:
        """`memory` (uint8, of the right size) as this tensor with `rows` rows."""
        if self.channels_last and len(self.shape) == 3:
            channels, height, width = self.shape
            return memory.view(self.dtype).view(rows, height, width, channels).permute(0, 3, 1, 2)
        return memory.view(self.dtype).view(rows, *self.shape)


@dataclass(frozen=True)
class MessageLayout:
    """What both ends of a link agree on: the tensors of every kind of message, and the largest batch.

    Every header carries `code`, so that two ends with different ideas are an error at the first message.
    """

    max_rows: int
    specs: Mapping[Kind, tuple[TensorSpec, ...]]
    code: int = field(init=False)

    def __post_init__(self) -> None:
        text = repr((self.max_rows, sorted((int(kind), specs) for kind, specs in self.specs.items())))
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        object.__setattr__(self, "code", int.from_bytes(digest, "little") >> 1)

    @property
    def slot_bytes(self) -> int:
        """Size of a slot that holds the largest message."""
        return max(self.message_bytes(kind, self.max_rows) for kind in Kind)

    def message_bytes(self, kind: Kind, rows: int) -> int:
        """Bytes of a message, header included."""
        return HEADER_BYTES + sum(_aligned(spec.row_bytes * rows) for spec in self.specs.get(kind, ()))

    def pack(self, message: Message, slot: Tensor) -> int:
        """Copies a message into `slot` (uint8, CPU, `slot_bytes` long) and returns the bytes used.

        Raises:
            ValueError: The message does not fit the layout.
        """
        self.check(message)
        header = [int(message.kind), message.batch_id, message.step, message.rows, self.code, 0, 0, 0]
        slot[:HEADER_BYTES].view(torch.int64).copy_(torch.tensor(header))
        offset = HEADER_BYTES
        for spec in self.specs.get(message.kind, ()):
            size = spec.row_bytes * message.rows
            spec.view(slot[offset : offset + size], message.rows).copy_(message.tensors[spec.name])
            offset += _aligned(size)
        return offset

    def unpack(self, slot: Tensor) -> Message:
        """Reads a message whose tensors are views of `slot`.

        Raises:
            ValueError: The sender's layout is another one.
        """
        kind, batch_id, step, rows, code, *_ = slot[:HEADER_BYTES].view(torch.int64).tolist()
        if code != self.code:
            raise ValueError(f"the sender's messages have another layout (code {code}, here {self.code}): {self.specs}")
        offset, tensors = HEADER_BYTES, {}
        for spec in self.specs.get(Kind(kind), ()):
            size = spec.row_bytes * rows
            tensors[spec.name] = spec.view(slot[offset : offset + size], rows)
            offset += _aligned(size)
        return Message(Kind(kind), batch_id, step, tensors)

    def check(self, message: Message) -> None:
        """Raises ValueError where a message does not fit the layout."""
        specs = self.specs.get(message.kind, ())
        if unknown := set(message.tensors) - {spec.name for spec in specs}:
            raise ValueError(f"{message.kind.name} message: the layout has no {', '.join(sorted(unknown))}")
        if message.rows > self.max_rows:
            raise ValueError(f"{message.kind.name} message of {message.rows} rows, the layout allows {self.max_rows}")
        for spec in specs:
            tensor = message.tensors.get(spec.name)
            got = None if tensor is None else (tuple(tensor.shape[1:]), tensor.dtype, tensor.shape[0])
            if got != (spec.shape, spec.dtype, message.rows):
                raise ValueError(f"{message.kind.name} message: {spec} must have {message.rows} rows, got {got}")


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
