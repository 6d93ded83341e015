"""One direction of one link. Every implementation passes tests/conformance."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, Field

from workers.messages import Message


class LinkConfig(BaseModel, frozen=True, extra="forbid"):
    """How activations travel between stages."""

    slots: int = Field(2, ge=1, description="messages that a sender holds until the receiver takes them")


@dataclass(frozen=True)
class Received:
    """A message in a slot of the receiver; `release` gives the slot back and ends the life of the tensors."""

    message: Message
    release: Callable[[], None]


class Sender(ABC):
    """The upstream end of a link. One thread calls it."""

    wait_room_s: float = 0.0
    """Seconds that `send` has waited for a free slot."""

    @abstractmethod
    def send(self, message: Message) -> None:
        """Copies the message into a slot; the caller may change the tensors afterwards.

        Waits while all slots hold messages that the receiver has not taken: that is how a queue holds back its
        producer.

        Raises:
            TimeoutError: No slot became free within the link's deadline.
            ConnectionError: The receiver is gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Waits until the receiver has taken every message; idempotent. Raises as `send` does."""


class Receiver(ABC):
    """The downstream end of a link: it owns the slots. One thread calls `receive`, any thread releases."""

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
