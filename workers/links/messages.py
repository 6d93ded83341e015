"""Messages on a link: a fixed header and tensors, in a layout that both ends agree on."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeGuard

import torch
from torch import Tensor
from typing_extensions import TypeVar

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.workers.links.encoding import ENCODINGS, EncodedTensor, Encoding

TensorT_co = TypeVar("TensorT_co", bound=Tensor | EncodedTensor, covariant=True, default=Tensor)

ALIGNMENT_BYTES = 64
HEADER_WORDS = 8
"""kind, batch_id, step, rows, layout code, rows of the whole batch, then reserved; int64 each."""
HEADER_BYTES = HEADER_WORDS * 8


class Kind(IntEnum):
    """The meaning of a message to the stage that reads it."""

    TRAIN = 0
    """A training batch."""
    EVALUATE = 1
    """A batch of the held-out part; `batch_id` counts within the pass."""
    EVALUATED = 2
    """The end of an evaluation pass; `batch_id` is the epoch that it followed. No tensors."""
    END = 3
    """The end of the stream. `batch_id` is the step budget if the stream is complete; if it was stopped early, it is that
    of the first batch that was not sent. No tensors."""
    CHECKPOINT = 4
    """A mark: save the state after the batches before it; `batch_id` is that of the next training batch. No tensors."""
    DRAIN = 5
    """The last training batch has come: learn from the remaining feedback; `batch_id` is the step budget. No tensors."""
    FEEDBACK = 6
    """What a block sends back in the turn of training batch `batch_id`; travels upstream."""
    NO_FEEDBACK = 7
    """The same where it sends nothing. No tensors."""


@dataclass(frozen=True)
class Message(Generic[TensorT_co]):
    """One message. Its tensors may lie in a slot: they are valid until the message is released.

    Attributes:
        batch_id: Number of the mini-batch in the stream of stage 0; see `Kind` for the other meanings.
        step: Optimizer steps that the sender's last block had made when it computed the activation.
        tensors: Tensors by name, in the layout's order, with the batch as their first dimension. A tensor that is sent
            encoded arrives as `EncodedTensor`; `to` decodes it.
        batch_rows: Samples of the whole batch, if the message holds a part of one; 0: the message holds all of them.
    """

    kind: Kind
    batch_id: int
    step: int = 0
    tensors: Mapping[str, TensorT_co] = field(default_factory=dict)
    batch_rows: int = 0

    @property
    def rows(self: "Message") -> int:
        """Samples in the message; 0 without tensors."""
        return next((tensor.shape[0] for tensor in self.tensors.values()), 0)

    def part(self: "Message", part: Part, own: Part = WHOLE) -> "Message":
        """The message with the rows of one part of the batch, as views.

        Args:
            own: What of the batch this message has, which that part lies in.
        """
        if part == own:
            return self
        batch_rows = self.batch_rows or self.rows
        rows = part.rows(batch_rows, own.begin)
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Message(self.kind, self.batch_id, self.step, tensors, batch_rows)

    def to(self, device: torch.device) -> "Message":
        """The message with its tensors decoded and on `device`; the message itself if they are already.

        Blocks until they are copied, since their slot may be filled again as soon as it is released.
        """
        message: AnyMessage = self
        if _is_on(message, device):
            return message
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Message(self.kind, self.batch_id, self.step, moved, self.batch_rows)

    def copied(self: "Message") -> "Message":
        """The message with copies of its tensors, which outlive the slot."""
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        return Message(self.kind, self.batch_id, self.step, tensors, self.batch_rows)


AnyMessage = Message[Tensor | EncodedTensor]
"""A message that may lie in a slot."""


@dataclass(frozen=True)
class MessageLayout:
    """The agreement between both ends of a link: the tensors of every kind of message, and the largest batch.

    Every header carries `code`, so that a mismatch between the ends is an error at the first message.

    Attributes:
        encodings: Encoding by tensor name (workers.links.encoding.ENCODINGS); tensors without an entry are unchanged.
        joins: By the name of a tensor that is sent as several: their names, and how they become it again.
    """

    max_rows: int
    specs: Mapping[Kind, tuple[TensorSpec, ...]]
    encodings: Mapping[str, str] = field(default_factory=dict)
    joins: Mapping[str, tuple[tuple[str, ...], Callable[..., Tensor]]] = field(default_factory=dict)
    code: int = field(init=False)

    def __post_init__(self) -> None:
        specs = sorted((int(kind), specs) for kind, specs in self.specs.items())
        text = repr((self.max_rows, specs, sorted(self.encodings.items())))
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        object.__setattr__(self, "code", int.from_bytes(digest, "little") >> 1)

    @property
    def slot_bytes(self) -> int:
        """Size of a slot that holds the largest message."""
        return max(self.message_bytes(kind, self.max_rows) for kind in Kind)

    def message_bytes(self, kind: Kind, rows: int) -> int:
        """Bytes of a message, header included."""
        return HEADER_BYTES + sum(size for _, size in self.field_sizes(kind, rows))

    def field_sizes(self, kind: Kind, rows: int) -> list[tuple[TensorSpec, int]]:
        """The tensors of a message of `rows` rows, in order, each with its size in bytes, aligned."""
        return [
            (spec, _aligned(self.encoding_of(spec).size_bytes(spec, spec.rows_of(rows))))
            for spec in self.specs.get(kind, ())
        ]

    def encoding_of(self, spec: TensorSpec) -> Encoding:
        """How a tensor is stored in a slot."""
        return ENCODINGS[self.encodings.get(spec.name, "same")]

    def joined(self, tensors: Mapping[str, Tensor | EncodedTensor]) -> Mapping[str, Tensor | EncodedTensor]:
        """Tensors of a message as its reader knows them: those that were sent as several are decoded when they are moved."""
        if not self.joins:
            return tensors
        found = dict(tensors)
        for name, (parts, decode) in self.joins.items():
            if parts[0] in found:
                found[name] = EncodedTensor(tuple(found.pop(part) for part in parts), decode)
        return found

    def check(self, message: Message) -> None:
        """Raises ValueError if a message does not fit the layout."""
        specs = self.specs.get(message.kind, ())
        rows, tensors = message.rows, message.tensors
        if len(tensors) > len(specs) and (unknown := set(tensors) - {spec.name for spec in specs}):
            raise ValueError(f"{message.kind.name} message: the layout has no {', '.join(sorted(unknown))}")
        if rows > self.max_rows:
            raise ValueError(f"{message.kind.name} message of {rows} rows, the layout allows {self.max_rows}")
        for spec in specs:
            tensor = tensors.get(spec.name)
            if tensor is None or tensor.dtype != spec.dtype or tensor.shape != (spec.rows_of(rows), *spec.shape):
                got = None if tensor is None else (tuple(tensor.shape[1:]), tensor.dtype, tensor.shape[0])
                raise ValueError(f"{message.kind.name} message: {spec} must have {rows} rows, got {got}")


def _is_on(message: AnyMessage, device: torch.device) -> TypeGuard[Message]:
    return all(tensor.device == device for tensor in message.tensors.values())


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
