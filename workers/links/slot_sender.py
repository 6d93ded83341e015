"""The common part of senders whose slots are in their own process: wait for a slot, copy, count."""

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import Message, MessageLayout
from greedypipe.workers.links.patience import GivenUp
from greedypipe.workers.links.slots import SlotPool, never


class Packable(Protocol):
    """A place for one message."""

    def pack(self, message: Message) -> Tensor:
        """Copies a message that fits the layout into it; returns a view of the bytes used."""


PackableT = TypeVar("PackableT", bound=Packable)


class PackingSender(Sender, Generic[PackableT]):
    """Copies each message into a slot of a pool; a subclass passes the slot on and releases it.

    Args:
        transport: Name of the transport, for the figures.
        peer: The receiver in words, e.g. "stage 2", for messages.
        is_over: Returns True once no receiver will take anything: it has been started again, and waits elsewhere. A
            transport may not notice its peer's death.
    """

    header_bytes = 0
    """Of a header that travels apart from the slot."""

    def __init__(
        self,
        transport: str,
        layout: MessageLayout,
        pool: SlotPool[PackableT],
        *,
        timeout_s: float,
        peer: str,
        is_over: Callable[[], bool] = never,
    ) -> None:
        self._layout = layout
        self._pool = pool
        self._timeout_s = timeout_s
        self._peer = peer
        self._is_over = is_over
        self._stats = LinkStats(transport)

    @property
    def stats(self) -> LinkStats:
        return self._stats

    def abandon(self) -> None:
        self._pool.close(ConnectionError(f"the link to {self._peer} was given up here"))

    def send(self, message: Message) -> None:
        started = time.perf_counter()
        self._layout.check(message)
        waited_before_s = self._pool.waited_s
        try:
            slot = self._pool.acquire(self._timeout_s, self._is_over)
        except GivenUp:
            self.abandon()
            raise GivenUp(f"{self._peer} has been started again") from None
        except TimeoutError:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for room at {self._peer}, batch_id {message.batch_id}"
            ) from None
        waited_s = self._pool.waited_s - waited_before_s
        used = slot.pack(message)
        self._pass_on(slot, used)
        self._stats.count(self.header_bytes + len(used), time.perf_counter() - started - waited_s, waited_s)

    @abstractmethod
    def _pass_on(self, slot: PackableT, used: Tensor) -> None:
        """Passes a slot to the receiver; `used` is the part that holds the message. Does not block."""
