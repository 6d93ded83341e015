"""Spans of a trace by a device's clock: as long and in the order as the device works, whatever the host does meanwhile."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greedypipe.launch.reporting.trace_file import write_trace
from greedypipe.workers.around.recorder import Recorder
from greedypipe.workers.around.trace import Traced, make_tracing
from greedypipe.workers.devices.clock import DeviceClock
from greedypipe.workers.devices.gear import CpuGear, GpuGear
from greedypipe.workers.devices.side import HostSide
from greedypipe.workers.devices.spans import MOST_RUNNING, DeviceSpans
from greedypipe.workers.inbox import Delivery
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import Spans
from tests.conformance.simulated import Busy, Run, SimulatedDevice
from tests.unit.test_device_order import ELSEWHERE, SimulatedSide

CALL_S, WAIT_S = 0.0001, 0.002
"""What starting work takes the host, and how long it waits for every message."""


class World(HostSide):
    """A host and a device whose clocks begin and run differently; the side of a stage on it, and what makes its events.

    Attributes:
        host_s: The time of the host.
        done_s: When the device will have done everything, by the host's clock.
    """

    def __init__(self, drift: float = 1.0) -> None:
        self.host_s, self.done_s, self.drift, self.made = 1000.0, 0.0, drift, 0

    def now(self) -> float:
        """The host's clock, as time.perf_counter."""
        self.host_s += 1e-7
        return self.host_s

    def launch(self, seconds: float) -> None:
        self.host_s += CALL_S
        self.done_s = max(self.done_s, self.host_s) + seconds

    def is_reached(self, mark: Any) -> bool:
        self.host_s = max(self.host_s, self.done_s)
        return True

    def event(self) -> "WorldEvent":
        self.made += 1
        return WorldEvent(self)


class WorldEvent:
    def __init__(self, world: World) -> None:
        self._world = world

    def record(self) -> None:
        self.at_s = max(self._world.host_s, self._world.done_s)

    def query(self) -> bool:
        return self.at_s <= self._world.host_s

    def elapsed_time(self, other: "WorldEvent") -> float:
        assert self.query() and other.query(), "CUDA refuses this before both are reached"
        return (other.at_s - self.at_s) * self._world.drift * 1e3


class Launching:
    """A block that only starts work."""

    finished, index = False, 3

    def __init__(self, launch: Callable[[float], object]) -> None:
        self._launch = launch

    def forward(self, x: Any, batch: Any) -> None:
        self._launch(0.03)

    def learn(self, feedback: Any, *, drains: bool = False) -> Any:
        self._launch(0.05)
        return Learnt()


class Learnt:
    loss = 0.0


def run(tracing: Any, launch: Callable[[float], object], messages: list[Message], wait: Callable[[], object]) -> Spans:
    """A stage's loop over some messages."""

    def waited() -> Iterator[Delivery]:
        for message in messages:
            wait()
            yield Delivery(message, 0, 1)

    (block,) = tracing.blocks([Launching(launch)])
    for delivery in tracing.inbox(waited()):
        if delivery.message.kind == Kind.EVALUATE:
            launch(0.02)
        else:
            block.forward(None, None)
            block.learn()
    spans: Spans = tracing.spans()
    return spans


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(drift=1.0001)
    monkeypatch.setattr(time, "perf_counter", world.now)
    return world


def train(*batch_ids: int) -> list[Message]:
    return [Message(Kind.TRAIN, batch_id) for batch_id in batch_ids]


def traced(world: World, batches: int, first: int = 0, capacity: int = 99) -> Traced:
    recorder = Recorder(first, batches, capacity)
    return Traced(recorder, DeviceSpans(recorder, world, world.event), stage=1)


def wait_of(world: World) -> Callable[[], None]:
    def wait() -> None:
        world.host_s += WAIT_S

    return wait


def test_work_is_told_as_the_device_did_it_and_waits_as_the_host_did(world: World) -> None:
    tracing = traced(world, 3)
    messages = [*train(0), Message(Kind.EVALUATE, 0), *train(1, 2, 3)]
    began_s = world.host_s
    spans = run(tracing, world.launch, messages, wait_of(world))
    columns = zip(spans.kind, spans.start_s, spans.end_s, spans.block, spans.batch_id, strict=True)
    work = [row for row in columns if not row[0].startswith("wait")]
    assert spans.work_overlaps and spans.lost == 0
    assert [(kind, block, batch_id) for kind, _, _, block, batch_id in work] == [
        *(("forward", 3, 0), ("learn", 3, 0), ("evaluate", -1, 0)),
        *((kind, 3, batch_id) for batch_id in (1, 2) for kind in ("forward", "learn")),
    ]
    # The host is done with all of it in a few milliseconds; the device does one after the other.
    at_s = began_s + WAIT_S + CALL_S
    for kind, start_s, end_s, *_ in work:
        length_s = {"forward": 0.03, "learn": 0.05, "evaluate": 0.02}[kind]
        assert (start_s, end_s) == pytest.approx((at_s, at_s + length_s), abs=2 * CALL_S)
        at_s += length_s
    waits = [
        end - start for kind, start, end in zip(spans.kind, spans.start_s, spans.end_s, strict=True) if kind == "wait_input"
    ]
    assert len(waits) == 3 and waits == pytest.approx([WAIT_S] * 3, abs=1e-5)
    assert max(end for kind, end in zip(spans.kind, spans.end_s, strict=True) if kind == "wait_input") < began_s + 5 * WAIT_S


def test_clocks_that_drift_apart_are_brought_together_far_from_the_beginning(world: World) -> None:
    tracing = traced(world, 1, first=1)
    world.host_s += 3600
    begun_s = world.host_s + WAIT_S + CALL_S + 0.08
    spans = run(tracing, world.launch, train(0, 1), wait_of(world))
    assert spans.kind == ["wait_input", "forward", "learn"]
    assert spans.start_s[1] == pytest.approx(begun_s, abs=0.001)
    assert spans.end_s[2] - spans.start_s[2] == pytest.approx(0.05, abs=1e-6)


def test_events_are_used_again_and_none_is_made_for_what_is_not_recorded(world: World) -> None:
    tracing = traced(world, 40, first=10, capacity=200)

    def wait() -> None:
        world.host_s = max(world.host_s, world.done_s) + WAIT_S

    made = world.made
    spans = run(tracing, world.launch, train(*range(100)), wait)
    assert spans.kind.count("learn") == 40
    assert world.made - 2 * made < 12


def test_the_host_waits_for_no_span_and_those_beyond_the_bound_are_counted(world: World) -> None:
    batches = MOST_RUNNING // 2 + 5
    tracing, begun_s = traced(world, batches, capacity=10**4), world.host_s
    told: list[float] = []
    spans = run(tracing, world.launch, train(*range(batches)), lambda: told.append(world.host_s))
    assert told[-1] - begun_s < 3 * batches * CALL_S < world.done_s - begun_s
    ends_s = [end for kind, end in zip(spans.kind, spans.end_s, strict=True) if kind != "wait_input"]
    assert 5 <= spans.lost <= 10 and len(ends_s) + spans.lost == 2 * batches
    assert ends_s == sorted(ends_s)


def test_spans_can_be_asked_for_twice(world: World) -> None:
    tracing = traced(world, 2)
    first = run(tracing, world.launch, train(0, 1), wait_of(world))
    world.host_s += 1
    again = tracing.spans()
    assert again.kind == first.kind and again.start_s == pytest.approx(first.start_s, abs=1e-6)


class LateEvent:
    """An event of a simulated device, which is reached when the device comes to it."""

    def __init__(self, side: SimulatedSide) -> None:
        self._side = side
        self._at_s: list[float] = []
        self._recorded = 0

    def record(self) -> None:
        self._recorded += 1
        self._side.device.put(self._side.stage, Run(lambda: self._at_s.append(time.perf_counter() + 77)))

    def query(self) -> bool:
        return len(self._at_s) == self._recorded

    def elapsed_time(self, other: "LateEvent") -> float:
        assert self.query() and other.query()
        return (other._at_s[-1] - self._at_s[-1]) * 1e3


def test_on_a_device_that_is_behind_the_host_spans_are_as_long_as_its_work() -> None:
    device = SimulatedDevice(0)
    side = SimulatedSide(device)
    gear = GpuGear(ELSEWHERE, side, DeviceClock(lambda: LateEvent(side)))
    tracing = make_tracing(LoggingConfig(trace_batches=3, trace_start=0), 1, 1, gear.work)
    began_s, ended_s = time.perf_counter(), []

    def launch(seconds: float) -> None:
        device.put(side.stage, Busy(seconds))
        ended_s.append(time.perf_counter())

    try:
        spans = run(tracing, launch, train(0, 1, 2), lambda: None)
    finally:
        device.close()
    assert ended_s[-1] - began_s < 0.15 < 3 * 0.08
    work = [row for row in zip(spans.start_s, spans.end_s, spans.kind, strict=True) if row[2] != "wait_input"]
    assert [kind for *_, kind in work] == ["forward", "learn"] * 3
    at_s = began_s
    for start_s, end_s, kind in work:
        shortest_s = {"forward": 0.03, "learn": 0.05}[kind]
        assert at_s - 0.001 < start_s and shortest_s - 0.001 < end_s - start_s < shortest_s + 0.04
        at_s = end_s
    assert at_s < time.perf_counter() + 0.001


def test_a_device_that_hangs_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = traced(world, 1)
    monkeypatch.setattr(world, "is_reached", lambda mark: False)
    monkeypatch.setattr("greedypipe.workers.devices.side.DEVICE_S", 0.02)
    with pytest.raises(TimeoutError, match=r"waited 0\.02 s for the stage's own device to tell the time for a trace"):
        tracing.spans()


def test_on_a_cpu_the_recorder_itself_keeps_work() -> None:
    recorder = Recorder(0, 1, 9)
    assert CpuGear().work(recorder) is recorder
    assert isinstance(GpuGear(ELSEWHERE, HostSide(), DeviceClock(World().event)).work(recorder), DeviceSpans)


def test_what_a_gpu_does_has_a_thread_of_its_own_in_the_file(tmp_path: Path) -> None:
    columns = [1.0, 1.1], [1.5, 1.2], ["forward", "send"], [0, -1], [7, 7]
    seats = [Seat(0, 0), Seat(1, 1)]
    write_trace(
        tmp_path, [Spans("a", 0.0, *columns, lost=0, work_overlaps=True), Spans("a", 0.0, *columns, 0)], seats, [[0], [1]]
    )
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = {(event["pid"], event["name"]): event["tid"] for event in events if event["ph"] == "X"}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names[spans[1, "forward 0"]] == "GPU" and names[spans[1, "send"]] == "training loop"
    assert names[spans[2, "forward 0"]] == names[spans[2, "send"]] == "training loop" and len(names) == 3
    ends = {event["ph"]: event["tid"] for event in events if event["ph"] in "sf"}
    assert ends == {"s": spans[1, "send"], "f": spans[2, "forward 0"]}
