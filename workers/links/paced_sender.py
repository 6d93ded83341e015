"""The upstream end of a paced link (workers.links.pacing)."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from greedypipe.workers.links.lane import Lane
from greedypipe.workers.links.messages import HEADER_BYTES, Message, MessageLayout
from greedypipe.workers.links.pacing import DEADLINES, Track, Word
from greedypipe.workers.links.slot_sender import PackingSender
from greedypipe.workers.links.slots import BareSlot, Header, SlotPool

LOOK_S = 0.01
"""Interval at which the wire is looked at while a message is on its way. Most have arrived before the first look."""


class FilledSlot:
    """A slot, and the point at which a message has been copied into it."""

    header: Header
    """Of that message."""

    def __init__(self, slot: BareSlot, lane: Lane) -> None:
        self._slot = slot
        self._lane = lane
        self.filled = lane.new_mark()

    def pack(self, message: Message) -> Tensor:
        """Puts the copies of the message's tensors on the stage's stream; returns a view of the bytes that they fill."""
        self.header, payload = self._slot.announce(message)
        self._lane.run(lambda: self._slot.fill(message))
        self._lane.mark_stage(self.filled)
        return payload


class Parcel(NamedTuple):
    """A message on its way, and when the wait for its next step began."""

    slot: FilledSlot
    payload: Tensor
    since: float

    @property
    def batch_id(self) -> int:
        return self.slot.header[1]


class PacedSender(PackingSender[FilledSlot]):
    """Copies each message into a slot of the device; a thread of its own moves them in order.

    A slot is free again when its message has arrived: then the wire has read it, whatever it may buffer.

    | thread | consumes     | waits for                              | unblocked by                        |
    |--------|--------------|----------------------------------------|-------------------------------------|
    | send   | full slots   | its copy, a credit, an arrival         | the device, the receiver, its loss, |
    |        |              |                                        | a failure of the wire               |
    | main   | free slots   | a slot                                 | the sending thread                  |

    Args:
        track: Owned by this object.
        slots: Of this link alone, for as long as it lives.
    """

    header_bytes = HEADER_BYTES

    def __init__(
        self, transport: str, track: Track, slots: Sequence[BareSlot], layout: MessageLayout, *, timeout_s: float
    ) -> None:
        self._control, self._wire, self._lane = track
        self._track = track
        made = iter(slots)
        pool = SlotPool(len(slots), lambda: FilledSlot(next(made), track.lane))
        super().__init__(transport, layout, pool, timeout_s=timeout_s, peer=track.control.peer)
        self.meets_on_device = track.wire.meets_on_device
        self.stats.slot_bytes = sum(len(slot.memory) for slot in slots)
        self._packed: deque[Parcel] = deque()
        self._moving: deque[Parcel] = deque()
        self._credits = self._untaken = 0
        self._error: BaseException | None = None
        self._is_undelivered = False
        self._is_closing = self._is_abandoned = False
        self._thread = threading.Thread(target=self._transmit, name=f"send to {self._peer}", daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        try:
            super().send(message)
        except ConnectionError:
            self._is_undelivered = True
            raise

    def close(self) -> None:
        self._is_closing = True
        self._control.poke()
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"waited {self._timeout_s:g} s for {self._peer} to take the last message")
        if self._error and self._is_undelivered:
            raise self._error

    def abandon(self) -> None:
        self._is_abandoned = True
        super().abandon()
        self._control.close()

    def _pass_on(self, slot: FilledSlot, used: Tensor) -> None:
        self._packed.append(Parcel(slot, used, time.monotonic()))
        self._control.poke()

    def _transmit(self) -> None:
        try:
            self._lane.enter()
            self._listen()
            while not self._is_closing or self._has_undelivered:
                if self._packed and self._credits:
                    self._move(self._packed.popleft())
                else:
                    if self._moving:
                        self._wire.check()
                    self._control.wait(self._quiet_s())
                self._listen()
        except BaseException as error:  # kept: the next call of send or close raises it
            self._is_undelivered |= self._has_undelivered and not self._is_abandoned
            self._error = error
            self._pool.close(error)
        finally:
            self._control.close()
            self._wire.abort()  # after success too: it lets go of the wire

    @property
    def _has_undelivered(self) -> bool:
        return bool(self._packed or self._untaken)

    def _move(self, parcel: Parcel) -> None:
        slot, payload, _ = parcel
        # The device first: from here on the transfer ends by itself, and soon.
        deadline_s = DEADLINES * self._timeout_s
        if not self._track.reaches(slot.filled, deadline_s):
            raise TimeoutError(
                f"waited {deadline_s:g} s for its own device to copy batch_id {parcel.batch_id} to {self._peer}"
            )
        self._credits -= 1
        self._untaken += 1
        self._control.put(*slot.header)
        self._moving.append(parcel._replace(since=time.monotonic()))
        if len(payload):
            self._lane.hold_lane(slot.filled)
            self._wire.send(payload)

    def _listen(self) -> None:
        """Takes what the receiver says; raises ConnectionError when it is gone."""
        while (words := self._control.take()) is not None:
            if words[0] == Word.CREDIT:
                self._credits += 1
            elif words[0] == Word.TAKEN:
                self._untaken -= 1
            else:
                self._pool.release(self._moving.popleft().slot)

    def _quiet_s(self) -> float | None:
        """Seconds until something is to be done though the receiver says nothing: until it is late, or the wire is to be
        looked at; None where it owes nothing. Raises TimeoutError where it is late."""
        oldest = next(iter((*self._moving, *self._packed)), None)
        if oldest is None:
            return None
        deadline_s = DEADLINES * self._timeout_s
        left_s = oldest.since + deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"waited {deadline_s:g} s for {self._peer} to take batch_id {oldest.batch_id}")
        return min(left_s, LOOK_S) if self._moving else left_s
