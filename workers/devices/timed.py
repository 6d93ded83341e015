"""What a stage's loop reads from and writes to, on a GPU: batches are fetched ahead of the device, and its clock is told of
steps and waits."""

from collections.abc import Iterator

from greedypipe.buffers.stats import BufferStats
from greedypipe.pipeline.feedback import Entry, Feedback
from greedypipe.workers.devices.clock import DeviceClock
from greedypipe.workers.devices.uploads import Uploads
from greedypipe.workers.inbox import Delivery, MessageStream
from greedypipe.workers.lines import Line
from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.telemetry.status import StageStatus


class UploadedInbox:
    """An inbox whose messages are on the device, and each of whose training batches is a step of the clock."""

    def __init__(self, inbox: MessageStream, uploads: Uploads, clock: DeviceClock, status: StageStatus) -> None:
        self._inbox = inbox
        self._uploads = uploads
        self._clock = clock
        self._status = status

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

    def __iter__(self) -> Iterator[Delivery]:
        for message, staleness, reuse in self._inbox:
            moved = self._uploads.moved(message)
            if message.kind == Kind.TRAIN and not self._status.finished:
                self._clock.begin()
            yield Delivery(moved, staleness, reuse)
            self._clock.end()
            self._uploads.done()


class ClockedSender(Sender):
    """A link whose waits for room are cut out of the clock's step."""

    def __init__(self, link: Sender, clock: DeviceClock) -> None:
        self._link = link
        self._clock = clock
        self.is_dead_end = link.is_dead_end

    @property
    def stats(self) -> LinkStats:
        return self._link.stats

    def send(self, message: Message) -> None:
        waited_before_s = self.wait_room_s
        self._clock.before_wait()
        self._link.send(message)
        self._clock.after_wait(self.wait_room_s > waited_before_s)

    def close(self) -> None:
        self._link.close()

    def abandon(self) -> None:
        self._link.abandon()


class ClockedLine:
    """A line of feedback from the next stage whose waits are cut out of the clock's step."""

    def __init__(self, line: Line, clock: DeviceClock) -> None:
        self._line = line
        self._clock = clock

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
        waited_before_s = self.wait_s
        self._clock.before_wait()
        entry = self._line.get()
        self._clock.after_wait(self.wait_s > waited_before_s)
        return entry

    def end(self) -> None:
        self._line.end()

    def close(self) -> None:
        self._line.close()
