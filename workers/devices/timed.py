"""What a stage's loop reads from and writes to, on a GPU: batches are fetched ahead of the device, and its clock is told of
steps and waits."""

from collections.abc import Iterator

from greedypipe.pipeline.feedback import Feedback
from greedypipe.workers.around.wrapped_ends import WrappedInbox, WrappedLine, WrappedSender
from greedypipe.workers.devices.clock import DeviceClock
from greedypipe.workers.devices.uploads import Uploads
from greedypipe.workers.inbox import Delivery, MessageStream
from greedypipe.workers.lines import Line
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.telemetry.status import StageStatus


class UploadedInbox(WrappedInbox):
    """An inbox whose messages are on the device, and each of whose training batches is a step of the clock."""

    def __init__(self, inbox: MessageStream, uploads: Uploads, clock: DeviceClock, status: StageStatus) -> None:
        super().__init__(inbox)
        self._uploads = uploads
        self._clock = clock
        self._status = status

    def __iter__(self) -> Iterator[Delivery]:
        for message, staleness, reuse in self._inbox:
            moved = self._uploads.moved(message)
            if message.kind == Kind.TRAIN and not self._status.finished:
                self._clock.begin()
            yield Delivery(moved, staleness, reuse)
            self._clock.end()
            self._uploads.done()


class ClockedSender(WrappedSender):
    """A link whose waits for room are cut out of the clock's step."""

    def __init__(self, link: Sender, clock: DeviceClock) -> None:
        super().__init__(link)
        self._clock = clock

    def send(self, message: Message) -> None:
        waited_before_s = self.wait_room_s
        self._clock.before_wait()
        self._link.send(message)
        self._clock.after_wait(self.wait_room_s > waited_before_s)


class ClockedLine(WrappedLine):
    """A line of feedback from the next stage whose waits are cut out of the clock's step."""

    def __init__(self, line: Line, clock: DeviceClock) -> None:
        super().__init__(line)
        self._clock = clock

    def get(self) -> Feedback:
        waited_before_s = self.wait_s
        self._clock.before_wait()
        entry = self._line.get()
        self._clock.after_wait(self.wait_s > waited_before_s)
        return entry
