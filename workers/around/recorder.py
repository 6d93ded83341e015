"""Spans of time of one stage, kept in memory until its run ends."""

import time
from array import array
from enum import IntEnum
from typing import Any, Protocol

from greedypipe.workers.links.messages import AnyMessage, Kind
from greedypipe.workers.telemetry.records import Spans
from greedypipe.workers.this_host import memory_of_host

EVALUATION_SPANS = 4096
"""Room for evaluation batches among the recorded training batches; further ones are not recorded."""
SPANS_PER_BATCH, SPANS_PER_BLOCK = 4, 2
"""Spans of a batch: waiting for input, waiting for room and sending; for each block, forward and learn."""
MOST_SPANS = 100_000
"""The spans' JSON must fit into one value of the rendezvous store, at most 8 MiB (torch's TCPStore)."""
CLOCK_READINGS = 16
CLOCK_DIGITS = 7


class SpanKind(IntEnum):
    """What a span of time was spent on. On a GPU those of WORK are the device's times, all others the host's."""

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
    WAIT_FEEDBACK = 8
    """Until the next stage's feedback was there."""


WORK = frozenset({SpanKind.FORWARD, SpanKind.LEARN, SpanKind.HAND_ON, SpanKind.EVALUATE})
"""What a stage computes; waits, and what is done for links, are not."""


class Work(Protocol):
    """Keeps the spans of a stage's work, by the clock of what does it."""

    def now(self) -> Any:
        """The moment at which everything is done that the stage has asked for so far. Does not wait for it."""

    def add(self, kind: SpanKind, start: Any, end: Any, block: int = -1) -> object:
        """Keeps a span of the current message, between two moments."""

    def spans(self) -> Spans:
        """All spans that the stage has recorded; may wait for its device."""


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
        self.is_training = self.is_recorded = False
        """Whether the current message is a recorded training batch, or is recorded at all; read by the wrapped parts."""

    now = staticmethod(time.perf_counter)
    """A CPU has done what it was asked for when a call returns."""

    def begin(self, message: AnyMessage) -> bool:
        """Makes a message that has been read the current one, which owns all following spans; returns whether it is
        recorded."""
        self.batch_id = message.batch_id
        if message.kind != Kind.TRAIN:
            self.is_training = False
            self.is_recorded = self._has_started and self._batches_left > 0 and message.kind != Kind.END
            return self.is_recorded
        self._has_started = self._has_started or message.batch_id >= self._first_batch_id
        self.is_training = self.is_recorded = self._has_started and self._batches_left > 0
        self._batches_left -= self.is_training
        return self.is_training

    def add(self, kind: SpanKind, start: float, end: float, block: int = -1) -> int:
        """Keeps a span of the current message; `start` and `end` are seconds of `time.perf_counter`. Returns its number; -1:
        there was no room."""
        index = self._count
        if index == self._capacity:
            self._lost += 1
            return -1
        self._starts[index], self._ends[index] = start, end
        self._codes[index], self._blocks[index], self._batch_ids[index] = kind, block, self.batch_id
        self._count = index + 1
        return index

    def lose(self) -> None:
        """Counts a span that could not be kept."""
        self._lost += 1

    def place(self, number: int, start: float, end: float) -> None:
        """Says when a span was whose times were not known when it was added."""
        self._starts[number], self._ends[number] = start, end

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
