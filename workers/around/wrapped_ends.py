"""The bases of wrappers around what a stage's loop reads from and writes to: every operation, passed through."""

from greedypipe.buffers.stats import BufferStats
from greedypipe.pipeline.feedback import Entry, Feedback
from greedypipe.workers.inbox import MessageStream
from greedypipe.workers.lines import Line
from greedypipe.workers.links.interface import LinkStats, Sender


class WrappedInbox:
    """An inbox but for its iteration, which subclasses add."""

    def __init__(self, inbox: MessageStream) -> None:
        self._inbox = inbox

    @property
    def wait_s(self) -> float:
        return self._inbox.wait_s

    @property
    def slot_bytes(self) -> int:
        return self._inbox.slot_bytes

    def read_each_once(self) -> None:
        self._inbox.read_each_once()

    def stats(self) -> BufferStats:
        return self._inbox.stats()

    def close(self) -> None:
        self._inbox.close()


class WrappedSender(Sender):
    """A sender but for `send`, which subclasses add."""

    def __init__(self, link: Sender) -> None:
        self._link = link
        self.is_dead_end = link.is_dead_end

    @property
    def stats(self) -> LinkStats:
        return self._link.stats

    def close(self) -> None:
        self._link.close()

    def abandon(self) -> None:
        self._link.abandon()


class WrappedLine:
    """A line of feedback from the next stage; subclasses override what they change."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def wait_s(self) -> float:
        return self._line.wait_s

    @property
    def stats(self) -> LinkStats | None:
        return self._line.stats

    @property
    def age_mean(self) -> float | None:
        return self._line.age_mean

    def put(self, entry: Entry, batch_id: int) -> None:
        self._line.put(entry, batch_id)

    def get(self) -> Feedback:
        return self._line.get()

    def end(self) -> None:
        self._line.end()

    def close(self) -> None:
        self._line.close()
