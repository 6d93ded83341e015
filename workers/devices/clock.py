"""How long a stage's steps take on its GPU, whatever the host does meanwhile."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch

from greedypipe.workers.telemetry.meter import Stopwatch

PAIRS = 64
"""Steps that may be on the device at a time and are timed; further ones are not."""


class Event(Protocol):
    """As torch.cuda.Event(enable_timing=True)."""

    def record(self) -> None: ...
    def query(self) -> bool: ...
    def elapsed_time(self, other: Any) -> float:
        """Milliseconds from this event to the other."""


def cuda_event() -> Event:
    """An event of the current stream, which keeps the time. Not yet run on a GPU."""
    event: Event = torch.cuda.Event(enable_timing=True)
    return event


class DeviceClock:
    """Times a stage's steps by events on its stream. On CUDA not yet run.

    A step is what lies between two events, without the cuts: between those of a cut the host waited for another stage, and
    the device, once it had done everything before, for the host. Read when reached: no call waits.

    Args:
        make_event: Called by the constructor and, for cuts, now and then.
    """

    def __init__(self, make_event: Callable[[], Event] = cuda_event) -> None:
        self.make_event = make_event
        self._free = [_Span(make_event(), make_event()) for _ in range(PAIRS)]
        self._free_cuts: list[_Span] = []
        self._running: deque[_Step] = deque()
        self._step: _Step | None = None
        self._cut: _Span | None = None
        self._measured_s = 0.0
        self._steps = 0

    @property
    def step_s(self) -> float:
        """Mean seconds of the steps that the device has done; 0 before the first."""
        self._collect()
        return self._measured_s / self._steps if self._steps else 0.0

    def begin(self) -> None:
        """A step begins: with what is put on the stream from now on."""
        self._collect()
        if self._free:
            self._step = _Step(self._free.pop())
            self._step.span.begin.record()

    def end(self) -> None:
        """Everything of the step is on the stream."""
        if self._step:
            self._step.span.end.record()
            self._running.append(self._step)
            self._step = None

    def before_wait(self) -> None:
        """The host may be about to wait for another stage."""
        if self._step:
            self._cut = self._free_cuts.pop() if self._free_cuts else _Span(self.make_event(), self.make_event())
            self._cut.begin.record()

    def after_wait(self, has_waited: bool) -> None:
        """It has done whatever it called, and has waited or not."""
        cut, self._cut = self._cut, None
        if not cut or not self._step:
            return
        if has_waited:
            cut.end.record()
            self._step.cuts.append(cut)
        else:
            self._free_cuts.append(cut)

    def _collect(self) -> None:
        while self._running and self._running[0].span.end.query():
            step = self._running.popleft()
            self._measured_s += step.seconds
            self._steps += 1
            self._free.append(step.span)
            self._free_cuts += step.cuts


class DeviceStopwatch(Stopwatch):
    """A stopwatch whose own time is the device's; waits are the host's, and may overlap with it."""

    def __init__(self, clock: DeviceClock) -> None:
        super().__init__()
        self._clock = clock

    @property
    def busy_s(self) -> float:
        return self._clock.step_s * self.batches


class _Span:
    def __init__(self, begin: Event, end: Event) -> None:
        self.begin, self.end = begin, end

    @property
    def seconds(self) -> float:
        return self.begin.elapsed_time(self.end) / 1e3


class _Step:
    def __init__(self, span: _Span) -> None:
        self.span = span
        self.cuts: list[_Span] = []

    @property
    def seconds(self) -> float:
        return max(0.0, self.span.seconds - sum(cut.seconds for cut in self.cuts))
