"""One direction of one link. Every implementation passes tests/conformance."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from greedypipe.workers.links.messages import AnyMessage, Message


class LinkConfig(BaseModel, frozen=True, extra="forbid"):
    """How activations travel between stages."""

    transport: Literal["auto", "shm", "gloo"] = Field(
        "auto",
        description="shm: shared memory, within one host; gloo: TCP, also between hosts; auto: shm between CPU stages of "
        "one host, gloo elsewhere",
    )
    slots: int = Field(
        2,
        ge=1,
        le=65536,
        description="messages in transit on each link before its sender waits, besides those in the buffer",
    )
    dtype: Literal["same", "bf16", "int8"] = Field(
        "same",
        description="encoding of activations in transit: same: unchanged; bf16, int8 (scale and offset per channel): "
        "smaller but lossy",
    )


class Received(NamedTuple):
    """A message in a slot of the receiver; `release` gives the slot back and ends the life of the tensors."""

    message: AnyMessage
    release: Callable[[], None]


@dataclass(slots=True)
class LinkStats:
    """What a sender has done since it was made.

    Attributes:
        transport: "inprocess", "shm" or "gloo"; "none" where nothing comes after.
        slot_bytes: Memory of the slots that this end has allocated.
        sent_bytes: Headers included.
        send_s: Seconds that `send` took without its waits: copying, encoding, waking the receiver.
    """

    transport: str
    slot_bytes: int = 0
    messages: int = 0
    sent_bytes: int = 0
    send_s: float = 0.0
    wait_room_s: float = 0.0
    """Seconds that `send` has waited for a free slot."""
    dropped: int = 0
    """Messages that found nobody to take them (workers.links.reconnecting)."""

    def count(self, size_bytes: int, send_s: float, wait_room_s: float) -> None:
        """Adds one message."""
        self.messages += 1
        self.sent_bytes += size_bytes
        self.send_s += send_s
        self.wait_room_s += wait_room_s

    def plus(self, other: "LinkStats") -> "LinkStats":
        """The figures of two links that are one to their user; the transport is the other's."""
        numbers = [field.name for field in fields(self) if field.name != "transport"]
        return LinkStats(other.transport, **{name: getattr(self, name) + getattr(other, name) for name in numbers})


class Sender(ABC):
    """The upstream end of a link. One thread calls it."""

    is_dead_end = False
    """Whether nobody receives what is sent."""

    @property
    @abstractmethod
    def stats(self) -> LinkStats:
        """What it has done so far."""

    @property
    def wait_room_s(self) -> float:
        """Seconds that `send` has waited for a free slot."""
        return self.stats.wait_room_s

    @abstractmethod
    def send(self, message: Message) -> None:
        """Copies the message into a slot; the caller may change the tensors afterwards.

        Waits while all slots hold messages that the receiver has not taken: that is how a queue holds back its
        producer.

        Raises:
            TimeoutError: No slot became free within the link's deadline.
            ConnectionError: The receiver is gone.
            ValueError: The message does not fit the layout; no slot is taken then.
        """

    @abstractmethod
    def close(self) -> None:
        """Waits until the receiver has taken every message; idempotent. Raises as `send` does."""

    @abstractmethod
    def abandon(self) -> None:
        """Gives up the link without waiting for the receiver, which may lose what is on its way; idempotent."""


class Receiver(ABC):
    """The downstream end of a link: it owns the slots. One thread calls `receive`, any thread releases."""

    slot_bytes: int = 0
    """Memory of the slots."""

    @abstractmethod
    def receive(self) -> Received:
        """Waits for the next message, in the order of sending.

        Waits first for a free slot, so a consumer that releases nothing holds back the sender.

        Raises:
            TimeoutError: No message, or no free slot, within the link's deadline.
            ConnectionError: The sender is gone.
            ValueError: The sender's messages have another layout.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives up the link; idempotent."""


class PollingReceiver(Receiver):
    """A receiver that can look for a message without waiting for one, so that its reader needs no second thread."""

    @abstractmethod
    def poll(self) -> Received | None:
        """The next message, or None where `receive` would wait. Raises as `receive` does."""


class DeadEnd(Sender):
    """The outbox of the last stage: nothing comes after it."""

    is_dead_end = True

    def __init__(self) -> None:
        self._stats = LinkStats("none")

    @property
    def stats(self) -> LinkStats:
        return self._stats

    def send(self, message: Message) -> None:
        pass

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass
