"""Records what a stage does during a few of its batches, by wrapping blocks, inbox and outbox; the loop is unchanged."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.feedback import NOTHING, Feedback, Learned
from greedypipe.workers.around.recorder import (
    EVALUATION_SPANS,
    MOST_SPANS,
    SPANS_PER_BATCH,
    SPANS_PER_BLOCK,
    Recorder,
    SpanKind,
    Work,
)
from greedypipe.workers.around.shell import AnyBlock, BlockShell
from greedypipe.workers.around.wrapped_ends import WrappedInbox, WrappedLine, WrappedSender
from greedypipe.workers.inbox import Delivery, MessageStream
from greedypipe.workers.lines import Line
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.links.messages import Message
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import Spans


class TracedInbox(WrappedInbox):
    """An inbox whose waits are recorded, and which passes the current message to the recorder."""

    def __init__(self, inbox: MessageStream, recorder: Recorder, work: Work, waiting: SpanKind) -> None:
        super().__init__(inbox)
        self._recorder = recorder
        self._work = work
        self._waiting = waiting

    def __iter__(self) -> Iterator[Delivery]:
        recorder, deliveries = self._recorder, iter(self._inbox)
        while True:
            asked = time.perf_counter()
            if (delivery := next(deliveries, None)) is None:
                return
            # The wait for the first message is start-up, not training.
            given, is_first = time.perf_counter(), recorder.batch_id < 0
            is_recorded = recorder.begin(delivery.message)
            if is_recorded and not is_first:
                recorder.add(self._waiting, asked, given)
            if not is_recorded or recorder.is_training:
                yield delivery
                continue
            started = self._work.now()
            yield delivery
            self._work.add(SpanKind.EVALUATE, started, self._work.now())


class TracedOutbox(WrappedSender):
    """An outbox whose calls are recorded: the wait for room first, then the copy."""

    def __init__(self, outbox: Sender, recorder: Recorder) -> None:
        super().__init__(outbox)
        self._recorder = recorder

    def send(self, message: Message) -> None:
        if not self._recorder.is_training:
            return self._link.send(message)
        waited_before_s, started = self.wait_room_s, time.perf_counter()
        self._link.send(message)
        ended, room = time.perf_counter(), started + self.wait_room_s - waited_before_s
        if room > started:
            self._recorder.add(SpanKind.WAIT_ROOM, started, room)
        self._recorder.add(SpanKind.SEND, room, ended)


class TracedBlock(BlockShell):
    """A block whose forward and learn are recorded."""

    def __init__(self, block: AnyBlock, recorder: Recorder, work: Work) -> None:
        super().__init__(block)
        self._recorder = recorder
        self._work = work

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        kind = SpanKind.HAND_ON if self._block.finished else SpanKind.FORWARD
        started = self._work.now()
        activation = self._block.forward(x, batch)
        self._record(kind, started)
        return activation

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        started = self._work.now()
        learned = self._block.learn(feedback, drains=drains)
        if learned.loss is not None:
            self._record(SpanKind.LEARN, started)
        return learned

    def _record(self, kind: SpanKind, started: Any) -> None:
        if self._recorder.is_training:
            self._work.add(kind, started, self._work.now(), self._block.index)


class TracedLine(WrappedLine):
    """A line of feedback from the next stage whose waits are recorded."""

    def __init__(self, line: Line, recorder: Recorder) -> None:
        super().__init__(line)
        self._recorder = recorder

    def get(self) -> Feedback:
        waited_before_s, started = self.wait_s, time.perf_counter()
        entry = self._line.get()
        if self._recorder.is_training and self.wait_s > waited_before_s:
            self._recorder.add(SpanKind.WAIT_FEEDBACK, started, time.perf_counter())
        return entry


class Tracing(Protocol):
    """Wraps the parts of a stage, or leaves them as they are; chosen once."""

    def blocks(self, blocks: Sequence[AnyBlock]) -> Sequence[AnyBlock]: ...
    def inbox(self, inbox: MessageStream) -> MessageStream: ...
    def outbox(self, outbox: Sender) -> Sender: ...
    def line(self, line: Line) -> Line: ...
    def spans(self) -> Spans | None: ...


class Untraced:
    """Leaves every part as it is: a run without a trace costs nothing."""

    def blocks(self, blocks: Sequence[AnyBlock]) -> Sequence[AnyBlock]:
        return blocks

    def inbox(self, inbox: MessageStream) -> MessageStream:
        return inbox

    def outbox(self, outbox: Sender) -> Sender:
        return outbox

    def line(self, line: Line) -> Line:
        return line

    def spans(self) -> None:
        return None


class Traced:
    """Wraps every part of a stage that takes time in a recording object."""

    def __init__(self, recorder: Recorder, work: Work, stage: int) -> None:
        self._recorder = recorder
        self._work = work
        self._waiting = SpanKind.WAIT_INPUT if stage else SpanKind.DATA

    def blocks(self, blocks: Sequence[AnyBlock]) -> Sequence[AnyBlock]:
        return [TracedBlock(block, self._recorder, self._work) for block in blocks]

    def inbox(self, inbox: MessageStream) -> MessageStream:
        return TracedInbox(inbox, self._recorder, self._work, self._waiting)

    def outbox(self, outbox: Sender) -> Sender:
        return outbox if outbox.is_dead_end else TracedOutbox(outbox, self._recorder)

    def line(self, line: Line) -> Line:
        return TracedLine(line, self._recorder)

    def spans(self) -> Spans:
        """See `Work.spans`."""
        return self._work.spans()


def on_host(recorder: Recorder) -> Work:
    """The recorder itself keeps the spans of work that is done when a call returns."""
    return recorder


def make_tracing(
    config: LoggingConfig, stage: int, num_blocks: int, work_of: Callable[[Recorder], Work] = on_host
) -> Tracing:
    """The tracing that `logging.trace_batches` and `logging.trace_start` ask for, for a stage of `num_blocks` blocks.

    Args:
        work_of: What keeps the spans of the stage's work for a recorder; called where there is a trace.
    """
    if not config.trace_batches:
        return Untraced()
    capacity = config.trace_batches * (SPANS_PER_BATCH + SPANS_PER_BLOCK * num_blocks) + EVALUATION_SPANS
    recorder = Recorder(config.trace_start, config.trace_batches, min(capacity, MOST_SPANS))
    return Traced(recorder, work_of(recorder), stage)
