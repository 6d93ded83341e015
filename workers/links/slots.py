"""Slots: memory for one message each. Their number is fixed; they are acquired and released."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from greedypipe.workers.links.encoding import Field
from greedypipe.workers.links.messages import HEADER_BYTES, AnyMessage, Kind, Message, MessageLayout
from greedypipe.workers.links.patience import GivenUp

T = TypeVar("T")


Header = Sequence[int]
"""What a message says of itself: kind, batch_id, step, rows, layout code, rows of the whole batch."""


class _Memory:
    """Memory for the tensors of one message of a layout. Views are made once per kind and number of rows, not once per
    message.

    Args:
        memory: uint8, aligned to 64 bytes.
        begin: Where in it the first tensor lies.
    """

    def __init__(self, layout: MessageLayout, memory: Tensor, begin: int) -> None:
        self._layout = layout
        self._memory = memory
        self._begin = begin
        self._views: dict[tuple[int, int], tuple[Mapping[str, Field], Tensor]] = {}

    @property
    def memory(self) -> Tensor:
        """The whole slot, to receive a message of unknown size."""
        return self._memory

    def _message(self, header: Header) -> tuple[AnyMessage, Tensor]:
        """The message that a header announces, its tensors views of the slot; and the part of the slot that it takes.

        Raises:
            ValueError: The sender has another layout, or this is no message of it.
        """
        kind, batch_id, step, rows, code, batch_rows = header
        if code != self._layout.code:
            raise ValueError(
                f"the sender's messages have another layout (code {code}, here {self._layout.code}): {self._layout.specs}"
            )
        if not 0 <= rows <= self._layout.max_rows:
            raise ValueError(f"a message of {rows} rows came, the layout allows {self._layout.max_rows}")
        fields, used = self._open(kind, rows)
        tensors = {name: field.read() for name, field in fields.items()}
        return Message(Kind(kind), batch_id, step, self._layout.joined(tensors), batch_rows), used

    def _open(self, kind: int, rows: int) -> tuple[Mapping[str, Field], Tensor]:
        views = self._views.get((kind, rows))
        if views is None:
            fields, offset = {}, self._begin
            for spec, size in self._layout.field_sizes(Kind(kind), rows):
                memory, own_rows = self._memory[offset : offset + size], spec.rows_of(rows)
                fields[spec.name] = self._layout.encoding_of(spec).field(spec, memory, own_rows)
                offset += size
            views = self._views[kind, rows] = fields, self._memory[:offset]
        return views


class Slot(_Memory):
    """Memory for one message, its header first.

    Args:
        memory: uint8, on the CPU, at least `layout.slot_bytes` long, aligned to 64 bytes.
    """

    def __init__(self, layout: MessageLayout, memory: Tensor) -> None:
        super().__init__(layout, memory, HEADER_BYTES)
        self._header = memory[:HEADER_BYTES].view(torch.int64).numpy()

    def pack(self, message: Message) -> Tensor:
        """Copies a message that fits the layout (`MessageLayout.check`) into the slot; returns a view of the bytes used."""
        kind, rows = message.kind, message.rows
        fields, used = self._open(kind, rows)
        self._header[:6] = (kind, message.batch_id, message.step, rows, self._layout.code, message.batch_rows)
        if rows:  # a replica's part may be empty, and an encoding finds no range in nothing
            for name, field in fields.items():
                field.write(message.tensors[name])
        return used

    def unpack(self) -> AnyMessage:
        """Reads the message; its tensors are views of the slot.

        Raises:
            ValueError: The sender has another layout, or this is no message of it.
        """
        return self._message(self._header[:6].tolist())[0]


class BareSlot(_Memory):
    """Memory for the tensors of one message, on any device. The header travels apart: the host could not read it there
    without waiting for the device.

    Args:
        memory: uint8, at least `payload_bytes(layout)` long, aligned to 64 bytes.
    """

    def __init__(self, layout: MessageLayout, memory: Tensor) -> None:
        super().__init__(layout, memory, 0)

    def announce(self, message: Message) -> tuple[Header, Tensor]:
        """The header of a message that fits the layout, and a view of the bytes that `fill` will write."""
        kind, rows = message.kind, message.rows
        header = (kind, message.batch_id, message.step, rows, self._layout.code, message.batch_rows)
        return header, self._open(kind, rows)[1]

    def fill(self, message: Message) -> None:
        """Copies the message's tensors into the slot, on the current stream where it is on a device."""
        if message.rows:
            for name, field in self._open(message.kind, message.rows)[0].items():
                field.write(message.tensors[name])

    def accept(self, header: Header) -> tuple[AnyMessage, Tensor]:
        """The message that a header announces, whose bytes may still be on their way, and the view that they go to.

        Raises:
            ValueError: The sender has another layout, or this is no message of it.
        """
        return self._message(header)


def payload_bytes(layout: MessageLayout) -> int:
    """Size of a slot without a header that holds the largest message; at least one byte."""
    return max(1, layout.slot_bytes - HEADER_BYTES)


def new_slot(layout: MessageLayout, *, pinned: bool = False) -> Slot:
    """A slot in this process's memory.

    Args:
        pinned: Whether to page-lock it, so that copies to and from this process's CUDA device are fast.
    """
    return Slot(layout, torch.zeros(layout.slot_bytes, dtype=torch.uint8, pin_memory=pinned))


LOOK_S = 0.2


def never() -> bool:
    """A wait that is never pointless."""
    return False


class SlotPool(Generic[T]):
    """Slots that one thread acquires and any thread releases. The slot released last is acquired first: it is most likely
    still in cache.

    Args:
        count: Number of slots, at least 1.
        make: Creates one slot; called `count` times by the constructor.
    """

    def __init__(self, count: int, make: Callable[[], T]) -> None:
        self._free = deque(make() for _ in range(count))
        self._changed = threading.Condition()
        self._closed: BaseException | None = None
        self.waited_s = 0.0

    def acquire(self, timeout_s: float, is_over: Callable[[], bool] = never) -> T:
        """Takes a slot; waits until one is free.

        Args:
            is_over: Returns True once the wait is pointless; looked at every `LOOK_S` seconds of it.

        Raises:
            GivenUp: The wait became pointless.
            TimeoutError: No slot became free within `timeout_s`.
            Exception: The error passed to `close`.
        """
        with self._changed:
            if not self._free or self._closed:
                self._wait(timeout_s, is_over)
            return self._free.pop()

    def _wait(self, timeout_s: float, is_over: Callable[[], bool]) -> None:
        started = time.perf_counter()
        while not self._changed.wait_for(lambda: self._free or self._closed, min(LOOK_S, timeout_s)):
            if is_over():
                raise GivenUp("nobody will release a slot any more")
            if time.perf_counter() - started >= timeout_s:
                raise TimeoutError(f"no free slot for {timeout_s:g} s")
        self.waited_s += time.perf_counter() - started
        if self._closed:
            raise self._closed

    def release(self, slot: T) -> None:
        """Returns a slot to the pool. Does not block."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify_all()

    def close(self, error: BaseException) -> None:
        """Makes every waiting and later `acquire` raise `error`. The first close wins."""
        with self._changed:
            self._closed = self._closed or error
            self._changed.notify_all()
