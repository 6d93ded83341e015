"""The lines of feedback of one stage: between its own blocks, from the next stage and to the stage before."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from greedypipe.pipeline.feedback import NOTHING, Entry, Feedback
from greedypipe.workers.around.shell import AnyBlock
from greedypipe.workers.inbox import Delivery, MessageStream
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.links.messages import Kind, Message


class Line(Protocol):
    """A queue of entries from one block to the block before."""

    @property
    def wait_s(self) -> float:
        """Seconds that `get` has waited for another stage."""

    def put(self, entry: Entry, batch_id: int) -> None:
        """Adds an entry; `batch_id` is that of the turn."""

    def get(self) -> Feedback:
        """Takes the oldest entry out; waits for it where it comes from another stage."""

    def end(self) -> None:
        """Called once when the stream has ended: nothing more is put or taken."""

    def close(self) -> None:
        """Waits until the other stage has taken everything that was put; idempotent."""


class NoLine:
    """No feedback: nothing is put in, and what is taken out is empty."""

    wait_s = 0.0

    def put(self, entry: Entry, batch_id: int) -> None:
        pass

    def get(self) -> Feedback:
        return NOTHING

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass


class LocalLine:
    """A line between two blocks of one process.

    Args:
        entries: What is in it at first.
    """

    wait_s = 0.0

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = deque(entries)

    def put(self, entry: Entry, batch_id: int) -> None:
        self._entries.append(entry)

    def get(self) -> Feedback:
        return self._entries.popleft()

    def end(self) -> None:
        self._entries.clear()

    def close(self) -> None:
        pass


class SentLine:
    """The upstream direction of a line to another stage.

    Never waits for room but at the end: the link holds one entry more than the line's delay.

    Args:
        entries: What is in the line at first; sent at once.
        batch_id: Of the first training batch that will come.
    """

    wait_s = 0.0

    def __init__(self, sender: Sender, entries: Sequence[Entry], batch_id: int) -> None:
        self._sender = sender
        for position, entry in enumerate(entries):
            self.put(entry, batch_id - len(entries) + position)

    def put(self, entry: Entry, batch_id: int) -> None:
        kind = Kind.FEEDBACK if entry else Kind.NO_FEEDBACK
        self._sender.send(Message(kind, batch_id, tensors=entry.tensors, batch_rows=entry.batch_rows))

    def get(self) -> Feedback:
        raise AssertionError("this end of the line is the sender's")

    def end(self) -> None:
        """Says that nothing more comes; does not wait until everything has been taken."""
        self._sender.send(Message(Kind.END, 0))

    def close(self) -> None:
        self._sender.close()


class ReceivedLine:
    """The end of a line from another stage.

    Args:
        inbox: What has been received.
        device: Of the block that takes the entries.
    """

    def __init__(self, inbox: MessageStream, device: torch.device) -> None:
        self._inbox = inbox
        self._deliveries: Iterator[Delivery] = iter(inbox)
        self._device = device

    @property
    def wait_s(self) -> float:
        return self._inbox.wait_s

    def put(self, entry: Entry, batch_id: int) -> None:
        raise AssertionError("this end of the line is the receiver's")

    def get(self) -> Feedback:
        message = next(self._deliveries).message.to(self._device)
        assert message.kind in (Kind.FEEDBACK, Kind.NO_FEEDBACK), f"{message.kind.name} came where feedback was due"
        # A method may pass an entry on, and a block keeps what it has sent: longer than the slot is ours.
        return {name: tensor.clone() for name, tensor in message.tensors.items()}

    def end(self) -> None:
        """Takes what is left, which nobody learns from; waits until the next stage has ended its stream."""
        for _ in self._deliveries:
            pass

    def close(self) -> None:
        pass


class Lines:
    """All lines of a stage.

    Args:
        blocks: Hosted here, in the network's order.
        before: From the first of them to the stage before.
        behind: From the next stage to the last of them.
    """

    def __init__(self, blocks: Sequence[AnyBlock], before: Line, behind: Line) -> None:
        inner = (LocalLine(later.line) if later.timing.sends else NoLine() for later in blocks[1:])
        self._lines: list[Line] = [before, *inner, behind]
        self._behind = behind

    @property
    def wait_s(self) -> float:
        """Seconds that `get` has waited for the next stage."""
        return self._behind.wait_s

    def get(self, position: int) -> Feedback:
        """The entry that the block at a position reads in this turn."""
        return self._lines[position + 1].get()

    def put(self, position: int, entry: Entry, batch_id: int) -> None:
        """Puts what the block at a position sends in this turn on the line before it."""
        self._lines[position].put(entry, batch_id)

    def end(self) -> None:
        """The stream has ended: says so to the stage before, and waits until the next stage has."""
        for line in self._lines:
            line.end()

    def close(self) -> None:
        """Waits until the stage before has taken everything."""
        for line in self._lines:
            line.close()
