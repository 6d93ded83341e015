"""A link between two threads of one process: for tests and for pipelines of threads."""

import queue
from collections.abc import Callable

from torch import Tensor

from workers.links.interface import Received, Receiver, Sender
from workers.links.process_group import new_slot
from workers.links.slots import SlotPool
from workers.messages import Message, MessageLayout


def make_inprocess_link(
    layout: MessageLayout, *, slots: int, timeout_s: float, sender: str = "the sender", receiver: str = "the receiver"
) -> tuple["InProcessSender", "InProcessReceiver"]:
    """Builds both ends; they share `slots` slots, so a message is copied once."""
    pool = SlotPool(slots, lambda: new_slot(layout))
    wire: queue.SimpleQueue[Tensor | BaseException] = queue.SimpleQueue()
    return (
        InProcessSender(layout, pool, wire, timeout_s, receiver),
        InProcessReceiver(layout, pool, wire, timeout_s, sender),
    )


class InProcessSender(Sender):
    """Copies into a shared slot and puts it on the receiver's queue."""

    def __init__(
        self, layout: MessageLayout, pool: SlotPool[Tensor], wire: "queue.SimpleQueue[Tensor | BaseException]",
        timeout_s: float, peer: str,
    ) -> None:  # fmt: skip
        self._layout, self._pool, self._wire, self._timeout_s, self._peer = layout, pool, wire, timeout_s, peer

    @property
    def wait_room_s(self) -> float:  # type: ignore[override]
        return self._pool.waited_s

    def send(self, message: Message) -> None:
        try:
            slot = self._pool.acquire(self._timeout_s)
        except TimeoutError:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for room at {self._peer}, batch_id {message.batch_id}"
            ) from None
        self._layout.pack(message, slot)
        self._wire.put(slot)

    def close(self) -> None:
        self._wire.put(ConnectionError("the sender has closed the link"))


class InProcessReceiver(Receiver):
    """Takes slots off the queue."""

    def __init__(
        self, layout: MessageLayout, pool: SlotPool[Tensor], wire: "queue.SimpleQueue[Tensor | BaseException]",
        timeout_s: float, peer: str,
    ) -> None:  # fmt: skip
        self._layout, self._pool, self._wire, self._timeout_s, self._peer = layout, pool, wire, timeout_s, peer

    def receive(self) -> Received:
        try:
            arrived = self._wire.get(timeout=self._timeout_s)
        except queue.Empty:
            raise TimeoutError(f"waited {self._timeout_s:g} s for a message of {self._peer}") from None
        if isinstance(arrived, BaseException):
            raise arrived
        release: Callable[[], None] = lambda: self._pool.release(arrived)  # noqa: E731
        return Received(self._layout.unpack(arrived), release)

    def close(self) -> None:
        self._pool.close(ConnectionError(f"{self._peer}'s receiver has closed the link"))
