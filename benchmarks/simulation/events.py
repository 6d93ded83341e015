"""A clock for simulated processes: generators that yield what they wait for."""

import heapq
import itertools
from collections.abc import Generator
from dataclasses import dataclass, field

Process = Generator["Compute | Sleep | Signal", None, None]


@dataclass(frozen=True)
class Compute:
    """Work that takes `seconds` on a core of its own, longer where more processes compute than there are cores."""

    seconds: float


@dataclass(frozen=True)
class Sleep:
    """Time that passes without a core."""

    seconds: float


@dataclass(eq=False)
class Signal:
    """Something that processes wait for; `Clock.wake` lets all of them look again."""

    waiting: list[Process] = field(default_factory=list)


class Clock:
    """Runs processes in the order of simulated time; equal times in the order in which they were asked for.

    All processes that compute share the cores equally. So their work advances at one common rate, and a process is done
    when the work that has been done per process reaches what it was at its start plus its own: a second clock, kept
    beside that of the time.

    Args:
        cores: 0 for one per process.
    """

    def __init__(self, cores: int) -> None:
        self.now_s = 0.0
        self._cores = cores
        self._work_s = 0.0
        self._computing: list[tuple[float, int, Process]] = []
        self._sleeping: list[tuple[float, int, Process]] = []
        self._numbers = itertools.count()

    def start(self, process: Process) -> None:
        """Runs a process up to its first wait."""
        self._resume(process)

    def wake(self, signal: Signal) -> None:
        """Lets everybody who waits for the signal go on, at the present time."""
        waiting, signal.waiting = signal.waiting, []
        for process in waiting:
            heapq.heappush(self._sleeping, (self.now_s, next(self._numbers), process))

    def step(self) -> bool:
        """Advances to the next event; returns whether there was one."""
        done_s = self.now_s + (self._computing[0][0] - self._work_s) / self._rate if self._computing else float("inf")
        if self._sleeping and self._sleeping[0][0] <= done_s:
            at_s, _, process = heapq.heappop(self._sleeping)
            self._advance(at_s)
        elif self._computing:
            self._advance(done_s)
            self._work_s, _, process = heapq.heappop(self._computing)
        else:
            return False
        self._resume(process)
        return True

    @property
    def _rate(self) -> float:
        """Seconds of work per second."""
        return min(1.0, self._cores / len(self._computing)) if self._cores else 1.0

    def _advance(self, at_s: float) -> None:
        if self._computing:
            self._work_s += (at_s - self.now_s) * self._rate
        self.now_s = at_s

    def _resume(self, process: Process) -> None:
        match next(process, None):
            case Compute(seconds):
                heapq.heappush(self._computing, (self._work_s + seconds, next(self._numbers), process))
            case Sleep(seconds):
                heapq.heappush(self._sleeping, (self.now_s + seconds, next(self._numbers), process))
            case Signal() as signal:
                signal.waiting.append(process)
