"""The downstream end of a paced link (workers.links.pacing)."""

import threading
import time
from collections import deque
from collections.abc import Sequence

from greedypipe.workers.links.interface import PollingReceiver, Received
from greedypipe.workers.links.lane import Lane, PeerGone
from greedypipe.workers.links.messages import AnyMessage
from greedypipe.workers.links.pacing import DEADLINES, Track, Word
from greedypipe.workers.links.slots import BareSlot

DRAIN_POLL_S = 0.0005
"""Interval at which released slots are checked that the device is still reading."""
GRACE_S = 0.1
"""How long the last message of a sender that has gone may take: it may be all but here."""
JOIN_S = 5.0


class ReadSlot:
    """A slot, and the points at which a message has moved into it and is no longer read."""

    is_read = False
    """Whether it has been lent since it was filled, so that the device may still be reading it."""

    def __init__(self, slot: BareSlot, lane: Lane) -> None:
        self.slot = slot
        self.moved, self.used = lane.new_mark(), lane.new_mark()


class PacedReceiver(PollingReceiver):
    """Receives into slots of the device as messages are announced, whether or not anybody reads.

    A thread does nothing else and waits for no reader, so that a credit is a promise: no half of a transfer ever waits on
    the sender's device until somebody wants the message. Slots are credited again once the device has read them.

    | thread  | consumes         | waits for                | unblocked by                      |
    |---------|------------------|--------------------------|-----------------------------------|
    | receive | headers          | a header, its transfer   | the sender, the device, its loss, |
    |         |                  |                          | a failure of the wire             |
    | main    | what has arrived | a message                | the receiving thread              |

    Args:
        track: Owned by this object.
        slots: Of this link alone, for as long as it lives.
    """

    lends = True

    def __init__(self, track: Track, slots: Sequence[BareSlot], *, timeout_s: float) -> None:
        self._control, self._wire, self._lane = track
        self._track = track
        self.meets_on_device = track.wire.meets_on_device
        self._timeout_s = timeout_s
        self._peer = track.control.peer
        self._free = deque(ReadSlot(slot, track.lane) for slot in slots)
        self._draining: deque[ReadSlot] = deque()
        self._arrived: deque[Received] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self.slot_bytes = sum(len(slot.memory) for slot in slots)
        for _ in slots:
            self._control.put(Word.CREDIT)
        self._thread = threading.Thread(target=self._fill, name=f"receive from {self._peer}", daemon=True)
        self._thread.start()

    def receive(self) -> Received:
        deadline = time.monotonic() + self._timeout_s
        while (received := self.poll()) is None:
            with self._changed:
                if not self._changed.wait_for(lambda: self._arrived or self._error, deadline - time.monotonic()):
                    break
        if received is None:
            if not self._free:
                raise TimeoutError(f"the reader of this stage has released no slot for {self._timeout_s:g} s")
            raise TimeoutError(f"waited {self._timeout_s:g} s for a message of {self._peer}")
        return received

    def poll(self) -> Received | None:
        with self._changed:
            if not self._arrived:
                if self._error:
                    raise self._error
                return None
            received = self._arrived.popleft()
        self._control.put(Word.TAKEN)
        return received

    def close(self) -> None:
        self._closed = True
        self._control.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)  # it may be inside a call of the device

    def _fill(self) -> None:
        try:
            self._lane.enter()
            while True:
                self._give_credits()
                if (words := self._control.take()) is not None:
                    received = self._take(words[:6])
                    with self._changed:
                        self._arrived.append(received)
                        self._changed.notify_all()
                else:
                    self._control.wait(DRAIN_POLL_S if self._draining else None)
        except BaseException as error:  # kept: the next call of receive or poll raises it
            with self._changed:
                self._error = ConnectionError(f"the link to {self._peer} was closed here") if self._closed else error
                self._changed.notify_all()
        finally:
            self._control.close()
            self._wire.abort()

    def _take(self, header: tuple[int, ...]) -> Received:
        """Receives what a header announces, into a slot that was credited."""
        slot = self._free.popleft()
        message, payload = slot.slot.accept(header)
        if len(payload):
            self._wire.receive(payload)
            self._lane.mark_lane(slot.moved)
            if not self._has_moved(slot):
                raise TimeoutError(
                    f"waited {DEADLINES * self._timeout_s:g} s for the data of batch_id {message.batch_id} of {self._peer}"
                )
        self._control.put(Word.ARRIVED)
        return self._received(message, slot)

    def _has_moved(self, slot: ReadSlot) -> bool:
        try:
            return self._track.reaches(slot.moved, DEADLINES * self._timeout_s)
        except PeerGone:
            if not self._track.reaches(slot.moved, GRACE_S, lambda: True):
                raise self._control.lost() from None
            return True

    def _received(self, message: AnyMessage, slot: ReadSlot) -> Received:
        def lend() -> None:
            self._lane.hold_stage(slot.moved)
            slot.is_read = True

        def give_back() -> None:
            self._lane.mark_stage(slot.used)

        def release() -> None:
            self._draining.append(slot)
            self._control.poke()

        return Received(message, release, lend, give_back)

    def _give_credits(self) -> None:
        """Credits the slots that were released and that the device has read."""
        for _ in range(len(self._draining)):
            slot = self._draining.popleft()
            if slot.is_read and not self._lane.is_reached(slot.used):
                self._draining.append(slot)
                continue
            slot.is_read = False
            self._free.append(slot)
            self._control.put(Word.CREDIT)
