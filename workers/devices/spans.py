"""Spans of a trace by a GPU's clock, told on the host's."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from greedypipe.workers.around.recorder import CLOCK_READINGS, Recorder, SpanKind
from greedypipe.workers.devices.clock import Event
from greedypipe.workers.devices.side import Side, wait_until
from greedypipe.workers.telemetry.records import Spans

MOST_RUNNING = 1024
"""Spans that may be on the device at a time; further ones are not kept."""


class DeviceSpans:
    """Keeps the spans of a stage's work (`Work`) by events on its stream. On CUDA not yet run.

    Events are read when they are reached and used again: no step waits. Two moments that are known on both clocks, before
    training and when the spans are asked for, tell the one from the other, as far as the two clocks drift apart evenly.

    The constructor waits for the device.

    Args:
        recorder: Where the spans have their places.
        side: Of the stage.
    """

    def __init__(self, recorder: Recorder, side: Side, make_event: Callable[[], Event]) -> None:
        self._recorder = recorder
        self._side = side
        self._make_event = make_event
        self._free: list[Event] = []
        self._running: deque[_Running] = deque()
        self._read: list[_Read] = []
        self._began = self._moment()
        self._last, self._last_s = self._began.event, 0.0
        """What has been read last, and when it was, in seconds since the first moment."""

    def now(self) -> Event | None:
        """An event at the end of what is on the stage's stream so far; None where nothing is recorded."""
        if not self._recorder.is_recorded:
            return None
        event = self._free.pop() if self._free else self._make_event()
        event.record()
        return event

    def add(self, kind: SpanKind, start: Event | None, end: Event | None, block: int = -1) -> None:
        """Keeps a span of the current message. Does not wait until it is over."""
        if start is None or end is None:
            return
        self._collect()
        if len(self._running) == MOST_RUNNING:
            self._recorder.lose()
        elif (number := self._recorder.add(kind, 0.0, 0.0, block)) >= 0:
            self._running.append(_Running(number, start, end))
            return
        self._free += start, end

    def spans(self) -> Spans:
        """All spans; waits for the device.

        Raises:
            TimeoutError: The device does not get there.
        """
        began, ended = self._began, self._moment()
        self._collect()
        rate = (ended.host_s - began.host_s) / _between_s(began.event, ended.event)
        for number, start_s, end_s in self._read:
            self._recorder.place(number, began.host_s + rate * start_s, began.host_s + rate * end_s)
        return replace(self._recorder.spans(), work_overlaps=True)

    def _collect(self) -> None:
        while self._running and self._running[0].end.query():
            number, start, end = self._running.popleft()
            # From one to the next: an event tells time in fp32, which is coarse after an hour.
            start_s = self._last_s + _between_s(self._last, start)
            end_s = start_s + _between_s(start, end)
            self._read.append(_Read(number, start_s, end_s))
            self._free += (start,) if self._last is self._began.event else (start, self._last)
            self._last, self._last_s = end, end_s

    def _moment(self) -> "_Moment":
        """A moment on both clocks: of several, the one that is known best. Waits until the device has nothing to do."""
        found, mark = [], self._side.new_mark()
        for _ in range(CLOCK_READINGS):
            event, before_s = self._make_event(), time.perf_counter()
            event.record()
            self._side.mark_stage(mark)
            wait_until(self._side, mark, "tell the time for a trace")
            after_s = time.perf_counter()
            found.append((after_s - before_s, _Moment(event, (before_s + after_s) / 2)))
        return min(found, key=lambda one: one[0])[1]


class _Moment(NamedTuple):
    event: Event
    host_s: float


class _Running(NamedTuple):
    number: int
    start: Event
    end: Event


class _Read(NamedTuple):
    """The number of a span that is over, and when it was, in the device's seconds since the first moment."""

    number: int
    start_s: float
    end_s: float


def _between_s(event: Event, later: Event) -> float:
    return event.elapsed_time(later) / 1e3
