"""What a stage on a GPU does beside its computing: no order of the work that its waits allow spoils anything, without any
one of them some order does, and the stage's figures and bits are those of the CPU.

On a simulated device (tests.conformance.simulated), so it samples orders.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from greedypipe.buffers.stats import BufferStats
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS
from greedypipe.workers.block_files import Saver, read_block
from greedypipe.workers.data.augment import normalise
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.devices import copies, deferred_meter, uploads
from greedypipe.workers.devices.clock import PAIRS, DeviceClock, DeviceStopwatch
from greedypipe.workers.devices.copies import ClonedStates, LandedStates
from greedypipe.workers.devices.deferred_meter import DeferredMeter
from greedypipe.workers.devices.gear import CpuGear, Gear, GpuGear, gear_of
from greedypipe.workers.devices.normalised import NormalisedBytes, on_host
from greedypipe.workers.devices.side import HostSide
from greedypipe.workers.devices.timed import ClockedSender
from greedypipe.workers.devices.uploads import Uploads
from greedypipe.workers.inbox import Delivery
from greedypipe.workers.lines import Lines, NoLine
from greedypipe.workers.links.interface import DeadEnd
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Seat
from greedypipe.workers.stage import Results, StageWorker
from greedypipe.workers.telemetry.meter import MetricsFile, Waits
from greedypipe.workers.telemetry.status import StageStatus
from tests.conformance.simulated import Busy, Run, SimulatedDevice, SimulatedLane
from tests.unit.tiny import CPU, differing, make_block, train

ELSEWHERE = torch.device("cpu", 0)
"""Another device to whoever compares, and the same memory."""
COUNT, TRIES = 25, 10
GREY = DataInfo((1, 4, 4), ("one", "other"), 8, 8, (0.1307,), (0.3081,))
TINY = ["data.name=digits", "model.name=mlp", "partition.blocks=2", "placement.device=cpu"]


class SimulatedSide(SimulatedLane):
    """As workers.devices.side.Side.

    Args:
        without: A method that does nothing; "" is none.
    """

    def __init__(self, device: SimulatedDevice, without: str = "") -> None:
        super().__init__(device, "own")
        if without in ("mark_stage", "mark_lane", "hold_stage", "hold_lane"):
            setattr(self, without, lambda mark: None)
        self._runs_at_once = without == "run"

    def run(self, work: Callable[[], object]) -> None:
        work() if self._runs_at_once else super().run(work)

    def run_aside(self, work: Callable[[], object]) -> None:
        self.run_on_lane(work)

    def host_memory_like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor)

    def be_busy(self, chance: random.Random) -> None:
        """Keeps both streams busy for a while, now and then."""
        for stream in (self.stage, self.own):
            if chance.random() < 0.3:
                self.device.put(stream, Busy(0.002 * chance.random()))


def uploads_are_right(side: SimulatedSide, chance: random.Random) -> bool:
    """Whether a stage reads every batch as the host has made it, though the host makes the next one in the same memory."""
    moving, image, right = Uploads(ELSEWHERE, side), torch.zeros(64), []
    for number in range(COUNT):
        image.fill_(number)
        side.be_busy(chance)
        moved = moving.moved(Message(Kind.TRAIN, number, tensors={ACTIVATION: image, IMAGE: image}))
        assert moved.tensors[ACTIVATION] is moved.tensors[IMAGE] is not image
        there: Any = moved.tensors[IMAGE]
        side.run(lambda there=there, number=number: right.append(bool((there == number).all())))  # type: ignore[misc]
        side.be_busy(chance)
        moving.done()
    side.device.drain()
    return right == [True] * COUNT


def bytes_are_right(side: SimulatedSide, chance: random.Random) -> bool:
    """Whether a stage reads every batch of bytes normalised, though the next one comes into the same memory."""
    image, right = torch.zeros(8, 1, 4, 4, dtype=torch.uint8), []
    moving = Uploads(ELSEWHERE, side, NormalisedBytes(GREY, ELSEWHERE, side))
    for number in range(COUNT):
        image.fill_(number)
        expected = normalise(image, GREY.mean, GREY.std)
        side.be_busy(chance)
        moved = moving.moved(Message(Kind.TRAIN, number, tensors={ACTIVATION: image, IMAGE: image, LABELS: torch.ones(8)}))
        assert moved.tensors[ACTIVATION] is moved.tensors[IMAGE]
        there: Any = moved.tensors[ACTIVATION]
        side.be_busy(chance)
        side.device.put(side.stage, Run(lambda a=there, b=expected: right.append(torch.equal(a, b))))  # type: ignore[misc]
        moving.done()
    side.device.drain()
    return right == [True] * COUNT


def losses_are_right(side: SimulatedSide, chance: random.Random) -> bool:
    """Whether every interval's mean is that of its losses, each written where the one before was."""
    block, loss, read = make_block(), torch.zeros(()), []
    meter = DeferredMeter(block, 3, side)
    for number in range(COUNT):
        side.be_busy(chance)
        side.run(lambda number=number: loss.fill_(number))  # type: ignore[misc]
        block.turn += 1
        if meter.record(loss, 100 + number):
            read.append(meter.read())
    while (mean := meter.read()) is not None:
        read.append(mean)
    whole = [(float(last - 1), last + 1, 100 + last) for last in range(2, COUNT, 3)]
    return read == [*whole, (float(COUNT - 1), COUNT, 100 + COUNT - 1)]


def copies_are_right(side: SimulatedSide, chance: random.Random) -> bool:
    """Whether every copy is of the state as it was, though the stage changes it in place at once."""
    weight, right = torch.zeros(64), []
    landing = LandedStates(side)
    for number in range(COUNT):
        side.run(lambda number=number: weight.fill_(number))  # type: ignore[misc]
        side.be_busy(chance)
        (copy,) = landing.take([{"layers": {"weight": weight}, "list": [weight], "turn": number}])
        side.run(lambda: weight.fill_(-1))
        landing.wait()
        held = copy["layers"]["weight"], *copy["list"]
        right.append(copy["turn"] == number and all(bool((one == number).all()) for one in held))
    return right == [True] * COUNT


WORK = {"uploads": uploads_are_right, "bytes": bytes_are_right, "losses": losses_are_right, "copies": copies_are_right}
WAITS = [
    *(("uploads", wait) for wait in ("hold_stage", "hold_lane", "mark_stage", "mark_lane", "the host's")),
    ("bytes", "run"),
    *(("losses", wait) for wait in ("mark_stage", "the host's")),
    *(("copies", wait) for wait in ("hold_stage", "hold_lane", "mark_stage", "mark_lane", "the host's")),
]


def is_right(work: str, seed: int, without: str = "") -> bool:
    device = SimulatedDevice(seed, longest_pause_s=0.0003)
    try:
        return WORK[work](SimulatedSide(device, without), random.Random(seed))
    except FloatingPointError:  # whatever lay in memory that is read too early
        return False
    finally:
        device.close()


@pytest.mark.parametrize("work", WORK)
def test_nothing_is_spoilt_in_any_order_of_the_devices_work(work: str) -> None:
    assert all(is_right(work, seed) for seed in range(3))


@pytest.mark.parametrize(("work", "wait"), WAITS, ids=str)
def test_a_wait_that_is_left_out_is_noticed(work: str, wait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wait == "the host's":
        for module in (uploads, copies, deferred_meter):
            monkeypatch.setattr(module, "wait_until", lambda side, mark, what: None)
        if work == "losses":
            monkeypatch.setattr(deferred_meter._Landing, "is_there", True)
    assert not all(is_right(work, seed, wait) for seed in range(TRIES))


@pytest.mark.parametrize("interval", [1, 2, 7])
def test_a_meter_asks_a_busy_device_for_nothing_until_its_memory_is_full(interval: int) -> None:
    device = SimulatedDevice(0)
    side = SimulatedSide(device)
    meter, started = DeferredMeter(make_block(), interval, side), time.perf_counter()
    device.put(side.stage, Busy(0.2))
    room = deferred_meter.LANDINGS * interval
    due = [meter.record(torch.tensor(1.0), number) for number in range(room)]
    assert due == [False] * (room - 1) + [True] and time.perf_counter() - started < 0.15
    assert meter.has_unread and meter.read() == (1.0, 0, interval - 1)
    device.close()


def test_a_loss_that_is_no_number_is_named_though_it_comes_late() -> None:
    block = make_block()
    meter = DeferredMeter(block, 2, HostSide())
    meter.record(torch.tensor(1.0), 4)
    block.turn = 6
    assert meter.record(torch.tensor(float("nan")), 5)
    block.turn = 9
    with pytest.raises(FloatingPointError, match=r"block 0: the local loss is nan at batch_id 5 \(step 5\)"):
        meter.read()


def test_what_is_there_already_or_encoded_is_not_uploaded() -> None:
    moving = Uploads(CPU, HostSide())
    for message in (Message(Kind.END, 0), Message(Kind.TRAIN, 0, tensors={IMAGE: torch.zeros(2)})):
        assert moving.moved(message) is message
        moving.done()


def test_uploaded_tensors_keep_bits_shape_strides_and_dtype() -> None:
    moving = Uploads(ELSEWHERE, HostSide())
    image = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    for sent in ({IMAGE: image, LABELS: torch.arange(4)}, {IMAGE: image[:3], LABELS: torch.arange(3)}):
        moved = moving.moved(Message(Kind.TRAIN, 7, 2, sent, 9))
        assert (moved.kind, moved.batch_id, moved.step, moved.batch_rows) == (Kind.TRAIN, 7, 2, 9)
        for name, tensor in sent.items():
            there: Any = moved.tensors[name]
            assert torch.equal(there, tensor) and there.stride() == tensor.stride() and there.dtype == tensor.dtype
        moving.done()


def test_a_saver_writes_landed_copies_as_it_writes_clones(tmp_path: Path) -> None:
    block = make_block()
    train(block, range(3))
    for folder, copying in (("clones", ClonedStates()), ("landed", LandedStates(HostSide()))):
        saver = Saver(tmp_path / folder, lambda name, saved: None, copies=copying)
        saver.save("first", [block.state_dict()])
        saver.close()
    written = [read_block(tmp_path / folder / "first" / "block0.pt") for folder in ("clones", "landed")]
    assert differing(*written) == []


def test_a_device_that_hangs_costs_the_checkpoint_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greedypipe.workers.devices.side.DEVICE_S", 0.02)
    device = SimulatedDevice(0)
    side = SimulatedSide(device)
    device.put(side.own, Busy(60))
    told = {}
    saver = Saver(tmp_path, told.__setitem__, copies=LandedStates(side))
    saver.save("first", [make_block().state_dict()])
    saver.close()
    device.close()
    assert told["first"].failure == "waited 0.02 s for the stage's own device to copy a checkpoint"


class FakeEvent:
    """An event of a device whose time a test sets."""

    now_ms = done_ms = 0.0

    def record(self) -> None:
        self.at_ms = max(FakeEvent.now_ms, FakeEvent.done_ms)

    def query(self) -> bool:
        return self.at_ms <= FakeEvent.now_ms

    def elapsed_time(self, other: "FakeEvent") -> float:
        return other.at_ms - self.at_ms


@pytest.fixture
def _new_time() -> None:
    FakeEvent.now_ms = FakeEvent.done_ms = 0.0


@pytest.mark.usefixtures("_new_time")
def test_the_stages_own_time_is_the_devices_without_the_waits() -> None:
    clock = DeviceClock(FakeEvent)
    watch = DeviceStopwatch(clock)
    for _ in range(3):
        clock.begin()
        FakeEvent.done_ms = FakeEvent.now_ms + 30  # forward
        clock.before_wait()
        FakeEvent.now_ms += 100  # for room: the device has been done for 70 ms
        clock.after_wait(has_waited=True)
        FakeEvent.done_ms = FakeEvent.now_ms + 50  # learn
        clock.before_wait()
        clock.after_wait(has_waited=False)
        clock.end()
        FakeEvent.now_ms += 5  # the host goes on while the device computes
        watch.count_training(0.105, Waits(output_s=0.1), 8)
        FakeEvent.now_ms += 60
    assert watch.step_time_s == pytest.approx(0.080) and watch.busy_s == pytest.approx(0.240)
    assert watch.launch_s == pytest.approx(0.015)


@pytest.mark.usefixtures("_new_time")
def test_a_clock_times_no_more_steps_than_it_has_events_for_and_waits_for_none() -> None:
    clock = DeviceClock(FakeEvent)
    FakeEvent.done_ms = 1e6
    for _ in range(2 * PAIRS):
        clock.begin()
        clock.end()
    assert clock.step_s == 0.0
    FakeEvent.now_ms = 2e6
    assert clock.step_s == 0.0 and len(clock._free) == PAIRS


class Given:
    """An inbox with these messages."""

    wait_s, slot_bytes = 0.0, 0

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Delivery]:
        for message in self._messages:
            yield Delivery(message, 0, 1)

    def read_each_once(self) -> None:
        pass

    def stats(self) -> Any:
        return BufferStats(capacity=1)

    def close(self) -> None:
        pass


def stage_of(gear: Gear, folder: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]], list[Any]]:
    """A stage trained on a few batches, with a pass: its weights, records and evaluation."""
    plan = make_plan(load_config(None, TINY), 1)
    normalising, status = gear.normalising(plan.config.data, plan.data), StageStatus(Seat(0, 0), [0, 1], 0, "host")
    source = BatchSource(plan.config.data, 0, plan.data, normalising.prepare)
    spec = plan.blueprint.task.ensemble
    messages = []
    for batch in map(source.training_batch, range(5)):
        tensors = {LABELS: batch.labels, ACTIVATION: batch.images, IMAGE: batch.images}
        messages.append(Message(Kind.TRAIN, batch.batch_id, tensors=tensors))
    for batch in list(source.test_batches())[:2]:
        ensemble = torch.zeros(len(batch.labels), *spec.shape, dtype=spec.dtype)
        messages.append(
            Message(Kind.EVALUATE, 0, tensors={LABELS: batch.labels, ACTIVATION: batch.images, spec.name: ensemble})
        )
    messages += [Message(Kind.EVALUATED, 1), Message(Kind.END, 5)]
    blocks = [plan.blueprint.build_block(index, CPU) for index in range(2)]
    metrics, published = MetricsFile(folder), []
    results = Results(metrics, 2, published.append, lambda batch_id: None, lambda batch_id: None, gear)
    worker = StageWorker(
        blocks,
        gear.inbox(Given(messages), status, normalising),
        gear.outbox(DeadEnd()),
        Lines(blocks, NoLine(), gear.line(NoLine())),
        carried=(),
        task=plan.blueprint.task,
        status=status,
        results=results,
    )
    worker.run()
    metrics.close()
    assert messages[0].tensors[IMAGE].dtype == (torch.float32 if isinstance(gear, CpuGear) else torch.uint8)
    weights = {f"{block.index}.{name}": value for block in blocks for name, value in block.layer_state().items()}
    return weights, [json.loads(line) for line in folder.read_text().splitlines()], published


def figures(records: list[dict[str, Any]]) -> list[str]:
    """What does not depend on when a record was written."""
    keys = ("block", "step", "batch_id", "loss", "lr", "evaluation", "accuracy")
    return sorted(json.dumps([record.get(key) for key in keys]) for record in records)


def test_a_stage_in_the_gear_of_a_gpu_has_the_bits_and_records_of_the_cpu(tmp_path: Path) -> None:
    FakeEvent.now_ms = FakeEvent.done_ms = 0.0
    gears = CpuGear(), GpuGear(ELSEWHERE, HostSide(), DeviceClock(FakeEvent))
    (weights, records, evaluated), found = (
        stage_of(gear, tmp_path / f"{number}.jsonl") for number, gear in enumerate(gears)
    )
    assert all(torch.equal(found[0][name], value) for name, value in weights.items())
    assert figures(records) == figures(found[1]) and len(records) == 2 * 3 + 1
    assert found[2] == evaluated


def test_the_cpus_gear_adds_nothing() -> None:
    gear, inbox, outbox, line = gear_of(CPU), Given([]), DeadEnd(), NoLine()
    status = StageStatus(Seat(0, 0), [0], 0, "host")
    assert (gear.inbox(inbox, status, on_host(GREY)), gear.outbox(outbox), gear.line(line)) == (inbox, outbox, line)
    assert isinstance(GpuGear(CPU, HostSide(), DeviceClock(FakeEvent)).outbox(Closed()), ClockedSender)


class Closed(DeadEnd):
    is_dead_end = False
