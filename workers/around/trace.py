"""Records what a stage does during a few of its batches, by wrapping blocks, inbox and outbox; the loop is unchanged."""

import time
from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Protocol

from torch import Tensor

from greedypipe.buffers.stats import BufferStats
from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Learned
from greedypipe.pipeline.feedback import NOTHING, Feedback
from greedypipe.workers.around.shell import AnyBlock, BlockShell
from greedypipe.workers.inbox import Delivery, MessageStream
from greedypipe.workers.links.connect import memory_of_host
from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import AnyMessage, Kind, Message
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import Spans

EVALUATION_SPANS = 4096
"""Room for evaluation batches among the recorded training batches; further ones are not recorded."""
SPANS_PER_BATCH, SPANS_PER_BLOCK = 3, 2
"""Spans of a batch: waiting for input, waiting for room and sending; for each block, forward and learn."""
MOST_SPANS = 100_000
"""The spans' JSON must fit into one value of the rendezvous store, at most 8 MiB (torch's TCPStore)."""
CLOCK_READINGS = 16
CLOCK_DIGITS = 7


class SpanKind(IntEnum):
    """What a span of time was spent on. On a GPU these are the host's times: a kernel may run later than its call."""

    DATA = 0
    """Making the next batch; stage 0 only."""
    WAIT_INPUT = 1
    """Waiting for the next message of the previous stage."""
    FORWARD = 2
    WAIT_ROOM = 3
    """Waiting until the next stage has room for a message."""
    SEND = 4
    """Encoding and copying a message, without the wait."""
    LEARN = 5
    """Head, local loss, backward and step of one block."""
    HAND_ON = 6
    """Forward of a block that has used up its step budget."""
    EVALUATE = 7
    """Processing of one evaluation batch, sending included."""


class Recorder:
    """Spans of one stage in preallocated arrays: adding one formats nothing and allocates nothing that stays.

    Recording starts with the first training batch that is at least as new as `first_batch_id`, so that stages that have
    drifted apart record the same time, and ends after `batches` training batches of any batch_id.

    Args:
        capacity: Number of spans to keep; later ones are counted as lost.
    """

    def __init__(self, first_batch_id: int, batches: int, capacity: int) -> None:
        self._first_batch_id = first_batch_id
        self._batches_left = batches
        self._has_started = False
        self._capacity = capacity
        self._starts, self._ends = array("d", bytes(8 * capacity)), array("d", bytes(8 * capacity))
        self._codes, self._blocks = array("b", bytes(capacity)), array("h", bytes(2 * capacity))
        self._batch_ids = array("q", bytes(8 * capacity))
        self._count = 0
        self._lost = 0
        self.batch_id = -1
        self.is_training = False
        """Whether the current message is a recorded training batch; read by the wrapped blocks and outbox."""

    def begin(self, message: AnyMessage) -> bool:
        """Makes a message that has been read the current one, which owns all following spans; returns whether it is
        recorded."""
        self.batch_id = message.batch_id
        if message.kind != Kind.TRAIN:
            self.is_training = False
            return self._has_started and self._batches_left > 0 and message.kind != Kind.END
        self._has_started = self._has_started or message.batch_id >= self._first_batch_id
        self.is_training = self._has_started and self._batches_left > 0
        self._batches_left -= self.is_training
        return self.is_training

    def add(self, kind: SpanKind, start: float, end: float, block: int = -1) -> None:
        """Keeps a span of the current message; `start` and `end` are seconds of `time.perf_counter`."""
        index = self._count
        if index == self._capacity:
            self._lost += 1
            return
        self._starts[index], self._ends[index] = start, end
        self._codes[index], self._blocks[index], self._batch_ids[index] = kind, block, self.batch_id
        self._count = index + 1

    def spans(self) -> Spans:
        """All spans, and what is needed to compare this host's clock with another's."""
        count = self._count
        return Spans(
            host=memory_of_host(),
            epoch_s=clock_origin_s(),
            start_s=[round(start, CLOCK_DIGITS) for start in self._starts[:count]],
            end_s=[round(end, CLOCK_DIGITS) for end in self._ends[:count]],
            kind=[SpanKind(code).name.lower() for code in self._codes[:count]],
            block=self._blocks[:count].tolist(),
            batch_id=self._batch_ids[:count].tolist(),
            lost=self._lost,
        )


def clock_origin_s() -> float:
    """Wall-clock time at which `time.perf_counter` was 0, from the least interrupted of several readings."""
    readings = []
    for _ in range(CLOCK_READINGS):
        before, wall, after = time.perf_counter(), time.time(), time.perf_counter()
        readings.append((after - before, wall - (before + after) / 2))
    return min(readings)[1]


class TracedInbox:
    """An inbox whose waits are recorded, and which passes the current message to the recorder."""

    def __init__(self, inbox: MessageStream, recorder: Recorder, waiting: SpanKind) -> None:
        self._inbox = inbox
        self._recorder = recorder
        self._waiting = waiting

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
            yield delivery
            if is_recorded and not recorder.is_training:
                recorder.add(SpanKind.EVALUATE, given, time.perf_counter())


class TracedOutbox(Sender):
    """An outbox whose calls are recorded: the wait for room first, then the copy."""

    def __init__(self, outbox: Sender, recorder: Recorder) -> None:
        self._outbox = outbox
        self._recorder = recorder

    @property
    def stats(self) -> LinkStats:
        return self._outbox.stats

    def send(self, message: Message) -> None:
        if not self._recorder.is_training:
            return self._outbox.send(message)
        waited_before_s, started = self.wait_room_s, time.perf_counter()
        self._outbox.send(message)
        ended, room = time.perf_counter(), started + self.wait_room_s - waited_before_s
        if room > started:
            self._recorder.add(SpanKind.WAIT_ROOM, started, room)
        self._recorder.add(SpanKind.SEND, room, ended)

    def close(self) -> None:
        self._outbox.close()

    def abandon(self) -> None:
        self._outbox.abandon()


class TracedBlock(BlockShell):
    """A block whose forward and learn are recorded."""

    def __init__(self, block: AnyBlock, recorder: Recorder) -> None:
        super().__init__(block)
        self._recorder = recorder

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        kind = SpanKind.HAND_ON if self._block.finished else SpanKind.FORWARD
        started = time.perf_counter()
        activation = self._block.forward(x, batch)
        self._record(kind, started)
        return activation

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        started = time.perf_counter()
        learned = self._block.learn(feedback, drains=drains)
        if learned.loss is not None:
            self._record(SpanKind.LEARN, started)
        return learned

    def _record(self, kind: SpanKind, started: float) -> None:
        if self._recorder.is_training:
            self._recorder.add(kind, started, time.perf_counter(), self._block.index)


class Tracing(Protocol):
    """Wraps the parts of a stage, or leaves them as they are; chosen once."""

    def blocks(self, blocks: Sequence[AnyBlock]) -> Sequence[AnyBlock]: ...
    def inbox(self, inbox: MessageStream) -> MessageStream: ...
    def outbox(self, outbox: Sender) -> Sender: ...
    def spans(self) -> Spans | None: ...


class Untraced:
    """Leaves every part as it is: a run without a trace costs nothing."""

    def blocks(self, blocks: Sequence[AnyBlock]) -> Sequence[AnyBlock]:
        return blocks

    def inbox(self, inbox: MessageStream) -> MessageStream:
        return inbox

    def outbox(self, outbox: Sender) -> Sender:
        return outbox

    def spans(self) -> None:
        return None


class Traced:
    """Wraps every part of a stage that takes time in a recording object."""

    def __init__(self, recorder: Recorder, stage: int) -> None:
        self._recorder = recorder
        self._waiting = SpanKind.WAIT_INPUT if stage else SpanKind.DATA

    def blocks(self, blocks: Sequence[AnyBlock]) -> Sequence[AnyBlock]:
        return [TracedBlock(block, self._recorder) for block in blocks]

    def inbox(self, inbox: MessageStream) -> MessageStream:
        return TracedInbox(inbox, self._recorder, self._waiting)

    def outbox(self, outbox: Sender) -> Sender:
        return outbox if outbox.is_dead_end else TracedOutbox(outbox, self._recorder)

    def spans(self) -> Spans:
        """See `Recorder.spans`."""
        return self._recorder.spans()


def make_tracing(config: LoggingConfig, stage: int, num_blocks: int) -> Tracing:
    """The tracing that `logging.trace_batches` and `logging.trace_start` ask for, for a stage of `num_blocks` blocks."""
    if not config.trace_batches:
        return Untraced()
    capacity = config.trace_batches * (SPANS_PER_BATCH + SPANS_PER_BLOCK * num_blocks) + EVALUATION_SPANS
    return Traced(Recorder(config.trace_start, config.trace_batches, min(capacity, MOST_SPANS)), stage)
