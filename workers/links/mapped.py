"""A link whose sender writes the receiver's slots itself: memory of a device that is mapped into both processes.

Neither end has a thread or a kernel of its own. The sender copies on its stage's stream into a slot that was given back,
marks the end of the copy, and says so over the control socket; the socket thus orders the marks of both processes. A message
counts as arrived when its mark is reached, so a stage that waits knows for whom, and what it reads never holds its device
up.
"""

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from greedypipe.workers.links.control import ControlSocket
from greedypipe.workers.links.interface import LinkStats, PollingReceiver, Received, Sender
from greedypipe.workers.links.lane import Lane, Mark, wait_for_mark
from greedypipe.workers.links.messages import HEADER_BYTES, AnyMessage, Message, MessageLayout
from greedypipe.workers.links.slots import BareSlot

LAST_WORDS_S = 1.0
"""How long a receiver that is closed waits until its sender has room for what it still has to say."""
NUMBER = 6
"""Where in a header's packet the number of the slot stands."""


class Word(IntEnum):
    """What goes upstream."""

    FREE = 0
    """A slot, by its number, may be written once its mark `used` is reached."""
    TAKEN = 1
    """A message has been given to its reader."""


class MappedSlot(NamedTuple):
    """A slot that both ends see. The sender marks `filled` on its device, the receiver `used`."""

    slot: BareSlot
    filled: Mark
    used: Mark


class MappedSender(Sender):
    """Copies each message into a free slot, on the stage's stream, and announces it. No thread.

    Args:
        slots: All of the receiver's, in its order.
    """

    def __init__(
        self,
        transport: str,
        control: ControlSocket,
        lane: Lane,
        slots: Sequence[MappedSlot],
        layout: MessageLayout,
        *,
        timeout_s: float,
    ) -> None:
        self._control, self._lane, self._layout = control, lane, layout
        self._slots = list(slots)
        self._timeout_s = timeout_s
        self._peer = control.peer
        # The slot that was given back first is used first: the device is the likeliest to have read it.
        self._free = deque(range(len(slots)))
        self._untaken = 0
        self._lost: ConnectionError | None = None
        self._closed = False
        # The slots belong to the receiver, which reports their memory.
        self._stats = LinkStats(transport)

    @property
    def stats(self) -> LinkStats:
        return self._stats

    def send(self, message: Message) -> None:
        started = time.perf_counter()
        self._layout.check(message)
        try:
            waited_s = self._wait_for_room(message)
            number = self._free.popleft()
            mapped = self._slots[number]
            header, payload = mapped.slot.announce(message)
            self._lane.hold_stage(mapped.used)
            self._lane.run(lambda: mapped.slot.fill(message))
            self._lane.mark_stage(mapped.filled)
            self._control.put(*header, number)
            self._control.flush(self._timeout_s)
            self._untaken += 1
        except ConnectionError as error:
            self._lost = error
            raise
        self._stats.count(HEADER_BYTES + len(payload), time.perf_counter() - started - waited_s, waited_s)

    def close(self) -> None:
        if self._lost:
            raise self._lost
        if self._closed:
            return
        deadline = time.monotonic() + self._timeout_s
        while self._is_awaited():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self._timeout_s:g} s for {self._peer} to take the last message")
            self._control.wait(deadline - time.monotonic())
        # The mapping goes before the receiver learns that it may free the memory.
        self._slots = []
        self.abandon()

    def abandon(self) -> None:
        # The device may still be writing: the mapping stays for as long as this object.
        self._closed = True
        self._control.close()

    def _is_awaited(self) -> bool:
        """Whether the receiver has not taken everything; raises ConnectionError if it never will."""
        try:
            self._listen()
        except ConnectionError:
            if self._untaken:
                raise
        return self._untaken > 0

    def _wait_for_room(self, message: Message) -> float:
        """Waits until a slot has been given back; returns the seconds waited."""
        self._listen()
        if self._free:
            return 0.0
        started = time.perf_counter()
        deadline = time.monotonic() + self._timeout_s
        while not self._free:
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self._timeout_s:g} s for room at {self._peer}, batch_id {message.batch_id}")
            self._control.wait(deadline - time.monotonic())
            self._listen()
        return time.perf_counter() - started

    def _listen(self) -> None:
        """Takes what the receiver says; raises ConnectionError when it is gone."""
        while (words := self._control.take()) is not None:
            if words[0] == Word.FREE:
                self._free.append(words[1])
            else:
                self._untaken -= 1


class MappedReceiver(PollingReceiver):
    """Reads messages in place, in its own slots, which the sender has filled. No thread.

    Args:
        slots: With their memory on this process's device.
    """

    lends = True

    def __init__(self, control: ControlSocket, lane: Lane, slots: Sequence[MappedSlot], *, timeout_s: float) -> None:
        self._control, self._lane = control, lane
        self._slots = slots
        self._timeout_s = timeout_s
        self._peer = control.peer
        self._announced: tuple[int, ...] | None = None
        """What has been announced, while its copy is on its way."""
        self.slot_bytes = sum(len(mapped.slot.memory) for mapped in slots)

    def receive(self) -> Received:
        deadline = time.monotonic() + self._timeout_s
        while (received := self.poll()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"waited {self._timeout_s:g} s for a message of {self._peer}")
            if self._announced:
                wait_for_mark(self._lane, self._slots[self._announced[NUMBER]].filled, left_s, lambda: True)
            else:
                self._control.wait(left_s)
        return received

    def poll(self) -> Received | None:
        if self._announced is None:
            self._announced = self._control.take()
        if self._announced is None:
            return None
        *header, number, _ = self._announced
        mapped = self._slots[number]
        if not self._lane.is_reached(mapped.filled):
            return None
        self._announced = None
        message, _ = mapped.slot.accept(header)
        self._control.put(Word.TAKEN)
        return self._received(message, mapped, number)

    def close(self) -> None:
        # The sender must know what has been taken, even if it has read none of hundreds of words.
        with contextlib.suppress(TimeoutError):
            self._control.flush(LAST_WORDS_S)
        self._control.close()

    def _received(self, message: AnyMessage, mapped: MappedSlot, number: int) -> Received:
        return Received(
            message,
            release=lambda: self._control.put(Word.FREE, number),
            lend=lambda: self._lane.hold_stage(mapped.filled),
            give_back=lambda: self._lane.mark_stage(mapped.used),
        )
