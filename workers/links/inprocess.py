"""A link between two threads of one process: for tests, and for pipelines of threads."""

import threading
from collections import deque

from torch import Tensor

from workers.links.interface import Received, Receiver, Sender
from workers.links.packing import new_slot, pack_into_free_slot
from workers.links.slots import SlotPool
from workers.messages import Message, MessageLayout


class Passage:
    """Slots on their way from one thread to the other, and whether both ends are still there."""

    def __init__(self, sender: str, receiver: str, timeout_s: float) -> None:
        self._sender = sender
        self._receiver = receiver
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._waiting: deque[Tensor] = deque()
        self._sender_gone = False
        self._receiver_gone = False

    def put(self, slot: Tensor) -> None:
        with self._changed:
            self._raise_if_receiver_gone()
            self._waiting.append(slot)
            self._changed.notify_all()

    def get(self) -> Tensor:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._sender_gone, self._timeout_s):
                raise TimeoutError(f"waited {self._timeout_s:g} s for a message of {self._sender}")
            if not self._waiting:
                raise ConnectionError(f"lost {self._sender}: it has closed the link")
            self._changed.notify_all()
            return self._waiting.popleft()

    def wait_until_taken(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting or self._receiver_gone, self._timeout_s):
                raise TimeoutError(f"waited {self._timeout_s:g} s for {self._receiver} to take the last message")
            if self._waiting:
                self._raise_if_receiver_gone()
            self._sender_gone = True
            self._changed.notify_all()

    def give_up(self) -> None:
        with self._changed:
            self._receiver_gone = True
            self._changed.notify_all()

    def _raise_if_receiver_gone(self) -> None:
        if self._receiver_gone:
            raise self.receiver_gone_error()

    def receiver_gone_error(self) -> ConnectionError:
        return ConnectionError(f"lost {self._receiver}: it has closed the link")


def make_inprocess_link(
    layout: MessageLayout, *, slots: int, timeout_s: float, sender: str = "the sender", receiver: str = "the receiver"
) -> tuple["InProcessSender", "InProcessReceiver"]:
    """Builds both ends; they share `slots` slots, so a message is copied once.

    Args:
        sender: The sender in words, e.g. "stage 0", for messages; `receiver` likewise.
    """
    pool = SlotPool(slots, lambda: new_slot(layout))
    passage = Passage(sender, receiver, timeout_s)
    return (
        InProcessSender(layout, pool, passage, timeout_s=timeout_s, peer=receiver),
        InProcessReceiver(layout, pool, passage),
    )


class InProcessSender(Sender):
    """Copies into a shared slot and passes it on."""

    def __init__(
        self, layout: MessageLayout, pool: SlotPool[Tensor], passage: Passage, *, timeout_s: float, peer: str
    ) -> None:
        self._layout, self._pool, self._passage, self._timeout_s, self._peer = layout, pool, passage, timeout_s, peer
        self._lost: ConnectionError | None = None

    @property
    def wait_room_s(self) -> float:  # type: ignore[override]
        return self._pool.waited_s

    def send(self, message: Message) -> None:
        try:
            slot, _ = pack_into_free_slot(self._pool, self._layout, message, timeout_s=self._timeout_s, peer=self._peer)
            self._passage.put(slot)
        except ConnectionError as error:
            self._lost = error
            raise

    def close(self) -> None:
        if self._lost:
            raise self._lost
        self._passage.wait_until_taken()


class InProcessReceiver(Receiver):
    """Takes slots as they come."""

    def __init__(self, layout: MessageLayout, pool: SlotPool[Tensor], passage: Passage) -> None:
        self._layout, self._pool, self._passage = layout, pool, passage

    def receive(self) -> Received:
        slot = self._passage.get()
        return Received(self._layout.unpack(slot), lambda: self._pool.release(slot))

    def close(self) -> None:
        self._passage.give_up()
        self._pool.close(self._passage.receiver_gone_error())
