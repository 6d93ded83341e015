"""One direction of one link. Every implementation passes tests/conformance."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from greedypipe.workers.links.messages import AnyMessage, Message


class LinkConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """How activations travel between stages."""

    transport: Literal["auto", "shm", "gloo", "nccl", "ipc"] = Field(
        "auto",
        description="shm: shared memory, CPU stages of one host; ipc: memory of a GPU that both processes map, within one "
        "host; nccl: between different GPUs, also of several hosts; gloo: through host memory, anywhere; auto: shm between "
        "CPU stages of one host, ipc between stages on one GPU, nccl between GPUs, gloo elsewhere and where these do not "
        "work",
    )
    slots: int = Field(
        2,
        ge=1,
        le=65536,
        description="messages in transit on each link before its sender waits, in addition to the buffer's",
    )
    dtype: Literal["same", "bf16", "int8"] = Field(
        "same",
        description="encoding of activations in transit: same: unchanged; bf16, int8 (scale and offset per channel): "
        "smaller but lossy",
    )


class Received(NamedTuple):
    """A message in a slot of the receiver; `release` returns the slot, after which the tensors are invalid."""

    message: AnyMessage
    release: Callable[[], None]
    lend: Callable[[], None] | None = None
    """Main thread, before each reading: what the stage does next on its device waits for the message's arrival. None where
    the tensors are there already."""
    give_back: Callable[[], None] | None = None
    """Main thread, after each reading that was lent: the slot's next use waits until the device has done it."""


@dataclass(slots=True)
class LinkStats:
    """Figures of a sender since its construction.

    Attributes:
        transport: "inprocess" or one of `LinkConfig.transport`; "none" in the last stage.
        slot_bytes: Memory of the slots that this end has allocated.
        sent_bytes: Bytes sent, headers included.
        send_s: Seconds spent in `send`, waits excluded: copying, encoding, waking the receiver.
    """

    transport: str
    slot_bytes: int = 0
    messages: int = 0
    sent_bytes: int = 0
    send_s: float = 0.0
    wait_room_s: float = 0.0
    """Seconds that `send` has waited for a free slot."""
    dropped: int = 0
    """Messages dropped while the receiver was away (workers.links.reconnecting)."""

    def count(self, size_bytes: int, send_s: float, wait_room_s: float) -> None:
        """Adds one message."""
        self.messages += 1
        self.sent_bytes += size_bytes
        self.send_s += send_s
        self.wait_room_s += wait_room_s

    def plus(self, other: "LinkStats") -> "LinkStats":
        """The sum of the figures of two links; the transport is that of `other`."""
        numbers = [field.name for field in fields(self) if field.name != "transport"]
        return LinkStats(other.transport, **{name: getattr(self, name) + getattr(other, name) for name in numbers})


class Sender(ABC):
    """The upstream end of a link. One thread calls it."""

    meets_on_device = False
    """Whether transfers put kernels on the devices of both ends that wait for each other."""

    is_dead_end = False
    """Whether messages are discarded, as there is no receiver."""

    @property
    @abstractmethod
    def stats(self) -> LinkStats:
        """The figures so far."""

    @property
    def wait_room_s(self) -> float:
        """Seconds that `send` has waited for a free slot."""
        return self.stats.wait_room_s

    @abstractmethod
    def send(self, message: Message) -> None:
        """Copies the message into a slot; the caller may change the tensors afterwards.

        Waits while all slots hold messages that the receiver has not taken; this is how a queue slows down its
        producer.

        Raises:
            TimeoutError: No slot became free within the link's deadline.
            ConnectionError: The receiver is gone.
            ValueError: The message does not fit the layout; no slot has been taken.
        """

    @abstractmethod
    def close(self) -> None:
        """Waits until the receiver has taken every message; idempotent. Raises as `send` does."""

    @abstractmethod
    def abandon(self) -> None:
        """Closes the link without waiting for the receiver, which may lose messages in transit; idempotent."""


class Receiver(ABC):
    """The downstream end of a link: it owns the slots. One thread calls `receive`, any thread releases."""

    slot_bytes: int = 0
    """Memory of the slots."""

    meets_on_device = False
    """As the sender's."""

    lends = False
    """Whether messages are lent: their tensors may be used between `Received.lend` and `give_back` alone."""

    @abstractmethod
    def receive(self) -> Received:
        """Waits for the next message, in the order of sending.

        Waits for a free slot first, so a consumer that releases no slot stops the sender.

        Raises:
            TimeoutError: No message, or no free slot, within the link's deadline.
            ConnectionError: The sender is gone.
            ValueError: The sender's messages have another layout.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the link; idempotent."""


class PollingReceiver(Receiver):
    """A receiver that can check for a message without waiting, so that its reader needs no second thread."""

    @abstractmethod
    def poll(self) -> Received | None:
        """The next message, or None where `receive` would wait. Raises as `receive` does."""


class DeadEnd(Sender):
    """The outbox of the last stage: discards every message."""

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
