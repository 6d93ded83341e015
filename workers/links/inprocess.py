"""A link between two threads of one process: for tests, and for pipelines of threads."""

import threading
from collections import deque

from torch import Tensor

from greedypipe.workers.links.interface import Received, Receiver
from greedypipe.workers.links.messages import Message, MessageLayout
from greedypipe.workers.links.slot_sender import PackingSender
from greedypipe.workers.links.slots import Slot, SlotPool, new_slot


class Passage:
    """Slots in transit from one thread to the other, and whether both ends are still open."""

    def __init__(self, sender: str, receiver: str, timeout_s: float) -> None:
        self._sender = sender
        self._receiver = receiver
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._waiting: deque[Slot] = deque()
        self._sender_gone = False
        self._receiver_gone = False

    def put(self, slot: Slot) -> None:
        with self._changed:
            self._raise_if_receiver_gone()
            self._waiting.append(slot)
            self._changed.notify_all()

    def get(self) -> Slot:
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
        self.leave()

    def leave(self) -> None:
        with self._changed:
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
        InProcessReceiver(pool, passage),
    )


class InProcessSender(PackingSender[Slot]):
    """Copies into a shared slot and passes it on."""

    def __init__(
        self, layout: MessageLayout, pool: SlotPool[Slot], passage: Passage, *, timeout_s: float, peer: str
    ) -> None:
        super().__init__("inprocess", layout, pool, timeout_s=timeout_s, peer=peer)
        self._passage = passage
        self._lost: ConnectionError | None = None

    def send(self, message: Message) -> None:
        try:
            super().send(message)
        except ConnectionError as error:
            self._lost = error
            raise

    def close(self) -> None:
        if self._lost:
            raise self._lost
        self._passage.wait_until_taken()

    def abandon(self) -> None:
        super().abandon()
        self._passage.leave()

    def _pass_on(self, slot: Slot, used: Tensor) -> None:
        self._passage.put(slot)


class InProcessReceiver(Receiver):
    """Takes slots as they come."""

    def __init__(self, pool: SlotPool[Slot], passage: Passage) -> None:
        self._pool, self._passage = pool, passage

    def receive(self) -> Received:
        slot = self._passage.get()
        return Received(slot.unpack(), lambda: self._pool.release(slot))

    def close(self) -> None:
        self._passage.give_up()
        self._pool.close(self._passage.receiver_gone_error())
