"""Slots: memory for one message each. Their number is fixed; they are acquired and released."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from greedypipe.workers.links.encoding import Field
from greedypipe.workers.links.messages import HEADER_BYTES, AnyMessage, Kind, Message, MessageLayout

T = TypeVar("T")


class Slot:
    """Memory for one message of a layout. Views are made once per kind and number of rows, not once per message.

    Args:
        memory: uint8, on the CPU, at least `layout.slot_bytes` long, aligned to 64 bytes.
    """

    def __init__(self, layout: MessageLayout, memory: Tensor) -> None:
        self._layout = layout
        self._memory = memory
        self._header = memory[:HEADER_BYTES].view(torch.int64).numpy()
        self._views: dict[tuple[int, int], tuple[Mapping[str, Field], Tensor]] = {}

    @property
    def memory(self) -> Tensor:
        """The whole slot, to receive a message of unknown size."""
        return self._memory

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
        kind, batch_id, step, rows, code, batch_rows = self._header[:6].tolist()
        if code != self._layout.code:
            raise ValueError(
                f"the sender's messages have another layout (code {code}, here {self._layout.code}): {self._layout.specs}"
            )
        if not 0 <= rows <= self._layout.max_rows:
            raise ValueError(f"a message of {rows} rows came, the layout allows {self._layout.max_rows}")
        fields, _ = self._open(kind, rows)
        tensors = {name: field.read() for name, field in fields.items()}
        return Message(Kind(kind), batch_id, step, self._layout.joined(tensors), batch_rows)

    def _open(self, kind: int, rows: int) -> tuple[Mapping[str, Field], Tensor]:
        views = self._views.get((kind, rows))
        if views is None:
            fields, offset = {}, HEADER_BYTES
            for spec, size in self._layout.field_sizes(Kind(kind), rows):
                memory, own_rows = self._memory[offset : offset + size], spec.rows_of(rows)
                fields[spec.name] = self._layout.encoding_of(spec).field(spec, memory, own_rows)
                offset += size
            views = self._views[kind, rows] = fields, self._memory[:offset]
        return views


def new_slot(layout: MessageLayout) -> Slot:
    """A slot in this process's memory; page-locked if CUDA is available, so that copies to the device are fast."""
    return Slot(layout, torch.zeros(layout.slot_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available()))


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

    def acquire(self, timeout_s: float) -> T:
        """Takes a slot; waits until one is free.

        Raises:
            TimeoutError: None became free within `timeout_s`.
            Exception: The error passed to `close`.
        """
        with self._changed:
            if not self._free and not self._closed:
                started = time.perf_counter()
                if not self._changed.wait_for(lambda: self._free or self._closed, timeout_s):
                    raise TimeoutError(f"no free slot for {timeout_s:g} s")
                self.waited_s += time.perf_counter() - started
            if self._closed:
                raise self._closed
            return self._free.pop()

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
