"""The source of a stage's messages: a link, and the buffer that decides what is read next."""

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from greedypipe.buffers.replay import CONTROL_CAPACITY, BuffersConfig, Policy, Read, ReplayBuffer
from greedypipe.buffers.stats import BufferStats
from greedypipe.workers.ending import AtOnce, Ending
from greedypipe.workers.links.interface import PollingReceiver, Received, Receiver
from greedypipe.workers.links.messages import AnyMessage, Kind
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.status import StageStatus

SLOTS_BEYOND_BUFFER = 2 + CONTROL_CAPACITY
"""Slots of a receiver in addition to the buffer's capacity: one being filled, one being read, and control messages."""


class Awaited(NamedTuple):
    """What an inbox waits for, for status and errors."""

    activity: Activity
    what: str


ACTIVATIONS = Awaited(Activity.WAIT_INPUT, "an activation")
FEEDBACK = Awaited(Activity.WAIT_FEEDBACK, "feedback")
_IN_TURN = (Kind.TRAIN, Kind.FEEDBACK, Kind.NO_FEEDBACK)


class Delivery(NamedTuple):
    """A message with its staleness and reuse; valid until the next one is requested."""

    message: AnyMessage
    staleness: int
    reuse: int


class MessageStream(Protocol):
    """The messages that a stage's loop reads: an `Inbox`, or in stage 0 a `Feed`. Iteration ends after Kind.END."""

    @property
    def wait_s(self) -> float:
        """Seconds that the loop has waited for messages from another stage."""

    @property
    def slot_bytes(self) -> int:
        """Memory of the slots that messages arrive in."""

    def __iter__(self) -> Iterator[Delivery]: ...
    def read_each_once(self) -> None: ...
    def stats(self) -> BufferStats: ...
    def close(self) -> None: ...


class Inbox:
    """Iterates over the messages of the previous stage, ending after Kind.END.

    Where nothing may be lost and the link can be polled, the reading thread moves arrived messages into the buffer itself.
    Otherwise a second thread does: with replay, so that the sender never waits while this stage computes; with a link
    that can only block, so that receives are posted ahead of time.

    | thread   | consumes          | waits for                         | unblocked by                       |
    |----------|-------------------|-----------------------------------|------------------------------------|
    | receiver | the link          | a message, a slot, room (queue)   | the sender; the main thread's read |
    | main     | the buffer        | an item                           | the receiver thread                |
    | main     | the polled link   | a message                         | the sender                         |

    An error that stops the filling of the buffer is raised by the iterator.

    Args:
        upstream: Name of the sending stage, e.g. "stage 1".
        awaited: What it sends.
        ending: Decides whether the iteration continues after Kind.END.
    """

    def __init__(
        self,
        receiver: Receiver,
        config: BuffersConfig,
        *,
        seed: int,
        status: StageStatus,
        upstream: str,
        timeout_s: float,
        awaited: Awaited = ACTIVATIONS,
        ending: Ending | None = None,
    ) -> None:
        self._awaited = awaited
        self._ending: Ending = ending or AtOnce()
        self._receiver = receiver
        self._status = status
        self._upstream = upstream
        self._timeout_s = timeout_s
        self.wait_s = 0.0
        self.slot_bytes = receiver.slot_bytes
        policy = Policy.from_config(config, seed)
        self._buffer: ReplayBuffer[Received] = ReplayBuffer(
            config.capacity, policy, dispose=lambda received: received.release()
        )
        self._filling = (
            PolledFilling(receiver, self._buffer, timeout_s)
            if policy.consumes and isinstance(receiver, PollingReceiver)
            else ThreadedFilling(receiver, self._buffer, timeout_s, upstream, stays=self._ending.stays)
        )

    def __iter__(self) -> Iterator[Delivery]:
        has_ended = False
        while not has_ended or self._ending.stay(lambda: self._buffer.is_readable):
            read = self._read()
            message, _, lend, give_back = read.item
            if lend:
                lend()
            yield Delivery(message, read.staleness, read.reuse)
            has_ended = has_ended or message.kind == Kind.END
            if give_back:
                give_back()
            read.done()

    def poll(self) -> Read[Received] | None:
        """What could be read next, if anything has come; the reader lends it, gives it back and calls `done`. Does not
        wait."""
        return self._buffer.try_read()

    def read_each_once(self) -> None:
        """Called once the stage has finished: forwarding a batch twice would only cost the other stages time."""
        self._buffer.cap_reuse(1)

    def stats(self) -> BufferStats:
        """The buffer's figures so far."""
        return self._buffer.stats()

    def close(self) -> None:
        """Closes the link, and ends the thread that waits for room; idempotent."""
        self._receiver.close()
        self._buffer.close(ConnectionError(f"the link to {self._upstream} was closed here"))

    def _read(self) -> Read[Received]:
        self._status.now(self._awaited.activity, self._upstream)
        started = time.perf_counter()
        try:
            return self._filling.read()
        except NothingToRead:
            raise TimeoutError(
                f"{self._status.seat.name} waited {self._timeout_s:g} s for {self._awaited.what} of {self._upstream}, "
                f"last batch_id {self._status.batch_id}"
            ) from None
        except BufferStayedFull:
            raise TimeoutError(
                f"{self._status.seat.name} read nothing from its full buffer for {self._timeout_s:g} s, "
                f"last batch_id {self._status.batch_id}"
            ) from None
        finally:
            self.wait_s += time.perf_counter() - started
            self._status.now(Activity.COMPUTING)


class NothingToRead(TimeoutError):
    """The sender has sent nothing within the deadline."""


class BufferStayedFull(TimeoutError):
    """The buffer had no room until the deadline."""


class PolledFilling:
    """Fills a queue from a link that can be polled, at every read. No second thread then competes with the one that
    computes, which matters when a step takes a millisecond."""

    def __init__(self, receiver: PollingReceiver, buffer: ReplayBuffer[Received], timeout_s: float) -> None:
        self._receiver = receiver
        self._buffer = buffer
        self._timeout_s = timeout_s
        self._ended = False

    def read(self) -> Read[Received]:
        """The next item; blocks while there is none. Raises the link's errors, or NothingToRead."""
        while not self._ended and self._buffer.has_room and (received := self._receiver.poll()) is not None:
            self._store(received)
        read = self._buffer.try_read()
        if read is None:
            self._store(self._receive())
            read = self._buffer.read(timeout_s=0)
        return read

    def _receive(self) -> Received:
        try:
            return self._receiver.receive()
        except TimeoutError:
            raise NothingToRead from None

    def _store(self, received: Received) -> None:
        self._ended = received.message.kind == Kind.END
        _insert(self._buffer, received, timeout_s=0)


class ThreadedFilling:
    """Fills a buffer from a link in a thread of its own.

    Args:
        stays: Whether to go on after Kind.END, until the link is closed.
    """

    def __init__(
        self, receiver: Receiver, buffer: ReplayBuffer[Received], timeout_s: float, upstream: str, *, stays: bool
    ) -> None:
        self._stays = stays
        self._receiver = receiver
        self._buffer = buffer
        self._timeout_s = timeout_s
        self._stopped_by: BaseException | None = None
        threading.Thread(target=self._fill, name=f"receive from {upstream}", daemon=True).start()

    def read(self) -> Read[Received]:
        """The next item; blocks while there is none. Raises the error that stopped the thread, or NothingToRead."""
        try:
            return self._buffer.read(self._timeout_s)
        except TimeoutError as error:
            if error is self._stopped_by:
                raise
            raise NothingToRead from None

    def _fill(self) -> None:
        try:
            kind = Kind.TRAIN
            while kind != Kind.END or self._stays:
                received = self._receiver.receive()
                kind = received.message.kind
                self._store(received)
        except BaseException as error:  # passed to the main thread, which raises it at its next read
            self._stopped_by = error
            self._buffer.close(error)

    def _store(self, received: Received) -> None:
        try:
            _insert(self._buffer, received, self._timeout_s)
        except TimeoutError:
            raise BufferStayedFull from None


def _insert(buffer: ReplayBuffer[Received], received: Received, timeout_s: float) -> None:
    insert = buffer.insert if received.message.kind in _IN_TURN else buffer.insert_control
    insert(received, timeout_s)
