"""The lines of feedback of one stage: between its own blocks, from the next stage and to the stage before."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from greedypipe.pipeline.feedback import NOTHING, Entry, Feedback
from greedypipe.workers.around.shell import AnyBlock
from greedypipe.workers.inbox import Delivery, Inbox, MessageStream
from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import Kind, Message


class Line(Protocol):
    """A queue of entries from one block to the block before."""

    @property
    def wait_s(self) -> float:
        """Seconds that `get` has waited for another stage."""

    @property
    def stats(self) -> LinkStats | None:
        """Figures of the link that entries are sent over; None where this end sends none over a link."""

    @property
    def age_mean(self) -> float | None:
        """Mean age of what `get` has found, in turns; None where it is the line's delay."""

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
    stats = age_mean = None

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
    stats = age_mean = None

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
    age_mean = None

    def __init__(self, sender: Sender, entries: Sequence[Entry], batch_id: int) -> None:
        self._sender = sender
        for position, entry in enumerate(entries):
            self.put(entry, batch_id - len(entries) + position)

    @property
    def stats(self) -> LinkStats:
        return self._sender.stats

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

    stats = None

    def __init__(self, inbox: MessageStream, device: torch.device) -> None:
        self._inbox = inbox
        self._deliveries: Iterator[Delivery] = iter(inbox)
        self._device = device

    @property
    def wait_s(self) -> float:
        return self._inbox.wait_s

    @property
    def age_mean(self) -> float | None:
        return None

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


class SentNewest(SentLine):
    """As `SentLine`, to a stage that takes the newest entry whenever it likes: empty ones are not sent.

    Args:
        block: Which puts entries in.
    """

    def __init__(self, sender: Sender, block: AnyBlock) -> None:
        self._block = block
        super().__init__(sender, block.line, block.turn)

    def put(self, entry: Entry, batch_id: int) -> None:
        if entry:
            self._sender.send(Message(Kind.FEEDBACK, batch_id, self._block.turn, entry.tensors))


class ReceivedNewest(ReceivedLine):
    """The end of a line from another stage whose newest entry counts, once, and which nobody waits for.

    Args:
        inbox: What has been received; keeps the newest entry alone.
        block: Which takes the entries.
    """

    def __init__(self, inbox: Inbox, device: torch.device, block: AnyBlock) -> None:
        super().__init__(inbox, device)
        self._newest = inbox
        self._block = block
        self._turn = block.turn
        self._found = self._ages = 0

    @property
    def age_mean(self) -> float | None:
        """Turns by which the block that sent an entry was behind the one that took it, on average; below 0: ahead."""
        return self._ages / self._found if self._found else None

    def get(self) -> Feedback:
        if self._block.turn == self._turn:
            return NOTHING  # the block has finished, and learns nothing
        self._turn = self._block.turn
        if (read := self._newest.poll()) is None:
            return NOTHING
        received, _, lend, give_back = read.item
        if lend:
            lend()
        message = received.to(self._device)
        assert message.kind == Kind.FEEDBACK, f"{message.kind.name} came where feedback was due"
        self._found += 1
        self._ages += self._turn - message.step
        entry = {name: tensor.clone() for name, tensor in message.tensors.items()}
        if give_back:
            give_back()
        read.done()
        return entry


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
