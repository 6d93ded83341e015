"""A device that exists only in tests: streams whose work is done later, in any order that marks allow.

What a missing wait would do once in a thousand runs on a GPU happens here in almost every run. Marks are as CUDA's events:
recording and waiting take a snapshot, and one that was never recorded counts as reached. It samples orders, and is no proof.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from greedypipe.workers.links.pacing import BrokenWire


class SimulatedMark:
    """How often it has been recorded, and which of these its stream has come to."""

    def __init__(self) -> None:
        self.recorded = 0
        self.reached = 0


class Operation(Protocol):
    """One piece of a stream's work."""

    def is_ready(self) -> bool:
        """Whether it may be done now, it being at the head of its stream."""

    def do(self) -> None:
        """Does it; with the device's lock held."""


@dataclass
class Run:
    work: Callable[[], object]

    def is_ready(self) -> bool:
        return True

    def do(self) -> None:
        self.work()


@dataclass
class Record:
    mark: SimulatedMark
    number: int

    def is_ready(self) -> bool:
        return True

    def do(self) -> None:
        self.mark.reached = max(self.mark.reached, self.number)


@dataclass
class Wait:
    mark: SimulatedMark
    number: int

    def is_ready(self) -> bool:
        return self.mark.reached >= self.number

    def do(self) -> None:
        pass


class Busy:
    """Work that takes its time and holds back nothing but its own stream."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None

    def is_ready(self) -> bool:
        if self._until is None:
            self._until = time.monotonic() + self._seconds
        return time.monotonic() > self._until

    def do(self) -> None:
        pass


class SimulatedDevice:
    """Does the work of its streams in a thread, always that of a stream chosen at random among those that may go on."""

    def __init__(self, seed: int, longest_pause_s: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._longest_pause_s = longest_pause_s
        self._streams: dict[str, deque[Operation]] = {}
        self._changed = threading.Condition()
        self._stops = False
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, stream: str, *operations: Operation) -> None:
        with self._changed:
            self._streams.setdefault(stream, deque()).extend(operations)
            self._changed.notify_all()

    def record(self, stream: str, mark: SimulatedMark) -> None:
        with self._changed:
            mark.recorded += 1
            self.put(stream, Record(mark, mark.recorded))

    def wait(self, stream: str, mark: SimulatedMark) -> None:
        with self._changed:
            self.put(stream, Wait(mark, mark.recorded))

    def is_reached(self, mark: SimulatedMark) -> bool:
        with self._changed:
            return mark.reached >= mark.recorded

    def head(self, stream: str) -> Operation | None:
        """What a stream does next."""
        return next(iter(self._streams.get(stream, ())), None)

    def pop(self, stream: str) -> Operation:
        return self._streams[stream].popleft()

    def drain(self) -> None:
        """Blocks until all is done."""
        deadline = time.monotonic() + 5
        while self._is_busy():
            assert time.monotonic() < deadline, "work is left on the device"
            time.sleep(0.0005)

    def close(self) -> None:
        with self._changed:
            self._stops = True
            self._changed.notify_all()

    def _work(self) -> None:
        while not self._stops:
            with self._changed:
                ready = [stream for stream, work in self._streams.items() if work and work[0].is_ready()]
                if not ready:
                    self._changed.wait(0.001)
                    continue
                self.pop(self._random.choice(ready)).do()
            if self._random.random() < 0.3:
                time.sleep(self._longest_pause_s * self._random.random())

    def _is_busy(self) -> bool:
        with self._changed:
            return any(self._streams.values())


class SimulatedWires:
    """Both ends of a connection: a transfer takes place when both halves are at the heads of their lanes."""

    def __init__(self, device: SimulatedDevice, lanes: tuple["SimulatedLane", "SimulatedLane"]) -> None:
        self.device = device
        self.aborted: set[str] = set()
        """The lanes whose ends have given up: a half that is on them ends, the other one goes on waiting."""
        self.is_stuck = False
        """Whether transfers that have begun never end."""
        self.waits_s: list[float] = []
        """For how long one half of each transfer was on its lane while the other end had not put its own on."""
        self.halves = HalfWire(self, lanes[0].own, lanes[1].own, True), HalfWire(self, lanes[1].own, lanes[0].own, False)


class HalfWire:
    """One end, as `workers.links.pacing.Wire`."""

    meets_on_device = True

    def __init__(self, wires: SimulatedWires, own: str, other: str, is_sender: bool) -> None:
        self._wires, self._own, self._other, self._is_sender = wires, own, other, is_sender
        self._random = random.Random(own)
        self.failure: BrokenWire | None = None
        """What it says of its transfers."""

    def send(self, memory: Tensor) -> None:
        half = Half(self._wires, memory, (self._own, self._other), self._is_sender, time.monotonic())
        self._wires.device.put(self._own, Busy(0.001 * self._random.random()), half)

    receive = send

    def check(self) -> None:
        if self.failure:
            raise self.failure

    def abort(self) -> None:
        self._wires.aborted.add(self._own)


@dataclass
class Half:
    """Half of a transfer."""

    wires: SimulatedWires
    memory: Tensor
    lanes: tuple[str, str]
    is_sender: bool
    since: float

    def is_ready(self) -> bool:
        (own, other), wires = self.lanes, self.wires
        head = wires.device.head(other)
        return own in wires.aborted or (isinstance(head, Half) and head.wires is wires and not wires.is_stuck)

    def do(self) -> None:
        own, lane = self.lanes
        if own in self.wires.aborted:
            return
        other = self.wires.device.pop(lane)
        assert isinstance(other, Half)
        self.wires.waits_s.append(abs(self.since - other.since))
        source, target = (self, other) if self.is_sender else (other, self)
        assert len(source.memory) == len(target.memory)
        target.memory.copy_(source.memory)


class SimulatedLane:
    """As `workers.links.lane.Lane`, of one end of a link.

    Args:
        end: "sender" or "receiver".
    """

    def __init__(self, device: SimulatedDevice, end: str) -> None:
        self.device = device
        self.stage, self.own = f"{end} stage", f"{end} lane"

    def enter(self) -> None:
        pass

    def new_mark(self) -> SimulatedMark:
        return SimulatedMark()

    def run(self, work: Callable[[], object]) -> None:
        self.device.put(self.stage, Run(work))

    def run_on_lane(self, work: Callable[[], object]) -> None:
        self.device.put(self.own, Run(work))

    def mark_stage(self, mark: SimulatedMark) -> None:
        self.device.record(self.stage, mark)

    def mark_lane(self, mark: SimulatedMark) -> None:
        self.device.record(self.own, mark)

    def hold_lane(self, mark: SimulatedMark) -> None:
        self.device.wait(self.own, mark)

    def hold_stage(self, mark: SimulatedMark) -> None:
        self.device.wait(self.stage, mark)

    def is_reached(self, mark: SimulatedMark) -> bool:
        return self.device.is_reached(mark)
