"""Bytes that are normalised on a stage's device: which samples travel so, and that they become what the CPU makes of
them."""

import pickle
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from greedypipe.launch.config.loader import load_config
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS
from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.pipeline.task import Classification
from greedypipe.workers.data.augment import as_stored, normalise
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.sets.registry import open_data
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.devices.clock import DeviceClock
from greedypipe.workers.devices.gear import CpuGear, GpuGear
from greedypipe.workers.devices.normalised import NormalisedBytes, Normalising, as_they_are, on_device
from greedypipe.workers.devices.side import HostSide
from greedypipe.workers.ending import AtOnce, Stops
from greedypipe.workers.feed import Calendar, Feed, Start
from greedypipe.workers.links.messages import Kind
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.status import StageStatus
from tests.unit.test_device_order import ELSEWHERE, FakeEvent

COLOURED = ["data.name=synthetic", "data.shape=[3,8,8]", "data.samples=40", "data.batch_size=8"]
MEANS, STDS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MOVED = [
    *((f"data.augment={how}",) for how in ("none", "crop", "crop_flip", "resized_crop", "resized_crop_flip")),
    ("data.views=2",),
    ("data.pretext=rotation", "data.views=4"),
    ("data.validation=0.2",),
]
"""What leaves bytes bytes."""


def chosen(*overrides: str) -> tuple[Any, DataInfo, Normalising]:
    config = load_config(None, [*COLOURED, *overrides]).data
    info = open_data(config).describe()
    return config, info, on_device(config, info, ELSEWHERE, HostSide())


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (2, 256), (64,)], ids=str)
def test_every_level_has_the_bits_that_the_cpu_makes_of_it(shape: tuple[int, ...]) -> None:
    channels = shape[0] if len(shape) > 1 else 1
    info = DataInfo(shape, ("one", "other"), 9, 9, MEANS[:channels], STDS[:channels])
    numbers = torch.arange(4 * torch.Size(shape).numel()).view(4, *shape)
    stored = (numbers * 37 % 256).to(torch.uint8)
    assert len(stored.unique()) == 256
    stored = stored.contiguous(memory_format=torch.channels_last) if len(shape) == 3 else stored
    given = {LABELS: torch.arange(4), ACTIVATION: stored, IMAGE: stored}
    tensors = NormalisedBytes(info, ELSEWHERE, HostSide())(given)
    expected = normalise(stored, info.mean, info.std)
    assert torch.equal(tensors[IMAGE], expected) and tensors[IMAGE].stride() == expected.stride()
    assert tensors[ACTIVATION] is tensors[IMAGE] and tensors[LABELS] is given[LABELS] and list(tensors) == list(given)


def test_all_that_is_divided_by_is_on_the_device() -> None:
    divided: list[tuple[Any, ...]] = []

    class Divisions(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            if "div" in function.name():
                divided.append(arguments)
            return function(*arguments, **(keywords or {}))

    there = torch.device("meta")
    normalise_there = NormalisedBytes(DataInfo((3, 8, 8), ("one", "other"), 9, 9, MEANS, STDS), there, HostSide())
    with Divisions():
        normalise_there({ACTIVATION: torch.empty(4, 3, 8, 8, dtype=torch.uint8, device=there)})
    # CUDA would multiply by the reciprocal of a number of the host's, be it a tensor or not.
    assert [divisor.device.type for _, divisor in divided] == ["meta", "meta"]


def test_what_a_stage_before_has_sent_is_not_normalised_again() -> None:
    tensors = {ACTIVATION: torch.zeros(2, 3, 4, 4), LABELS: torch.arange(2)}
    assert NormalisedBytes(DataInfo((3, 4, 4), ("a", "b"), 9, 9, MEANS, STDS), ELSEWHERE, HostSide())(tensors) is tensors


@pytest.mark.parametrize("overrides", MOVED, ids=str)
def test_batches_of_bytes_become_those_of_the_cpu(overrides: tuple[str, ...]) -> None:
    config, info, normalising = chosen(*overrides)
    assert normalising.prepare is as_stored
    plain, late = BatchSource(config, 3, info), BatchSource(config, 3, info, normalising.prepare)
    for one, other in (
        *((plain.training_batch(number), late.training_batch(number)) for number in (0, 5)),
        *zip(plain.evaluation_batches(), late.evaluation_batches(), strict=True),
    ):
        assert other.images.dtype == torch.uint8 and other.images.numel() == one.images.numel()
        assert torch.equal(normalising.arrived({ACTIVATION: other.images})[ACTIVATION], one.images)
        assert torch.equal(other.labels, one.labels) and one.extras.keys() == other.extras.keys()
        assert all(torch.equal(one.extras[name], other.extras[name]) for name in one.extras)


@pytest.mark.parametrize("part", [WHOLE, Part(Fraction(1, 3), Fraction(2, 3))], ids=["whole", "a replica's"])
def test_a_resumed_stream_of_bytes_is_that_of_the_cpu(part: Part) -> None:
    config, info, normalising = chosen("data.pretext=rotation")
    streams = []
    for prepare in (None, normalising.prepare):
        source = BatchSource(config, 3, info, prepare)
        calendar = Calendar(3 * source.steps_per_epoch, source.steps_per_epoch, start=Start(7, 1))
        task = Classification(info.input_shape, info.num_classes)
        stops, status = Stops(lambda: True, lambda: False, AtOnce()), StageStatus(Seat(0, 0), [0], 0, "here")
        feed = Feed(source, calendar, task, spread_evaluation=False, stops=stops, status=status, part=part)
        streams.append([delivery.message for delivery in feed])
    for one, other in zip(*streams, strict=True):
        assert (one.kind, one.batch_id, one.rows, one.batch_rows) == (
            other.kind,
            other.batch_id,
            other.rows,
            other.batch_rows,
        )
        tensors = normalising.arrived(other.tensors) if other.tensors else {}
        assert list(tensors) == list(one.tensors)
        assert all(
            torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype
            for name, tensor in one.tensors.items()
        )
    assert {message.kind for message in streams[0]} == {Kind.TRAIN, Kind.EVALUATE, Kind.EVALUATED, Kind.END}


@pytest.mark.parametrize("overrides", [("data.pretext=grey",), ("data.pretext=mask",), ("data.name=mnist_1d",)], ids=str)
def test_what_is_computed_with_or_stored_as_numbers_travels_normalised(overrides: tuple[str, ...]) -> None:
    config = load_config(None, [*(COLOURED if "data.name" not in overrides[0] else []), *overrides]).data
    info = open_data(config).describe_whole()
    normalising = on_device(config, info, ELSEWHERE, HostSide())
    assert normalising.arrived is as_they_are and normalising.prepare is not as_stored


def test_a_stage_on_a_cpu_has_its_loader_normalise() -> None:
    config, info, _ = chosen()
    normalising = CpuGear().normalising(config, info)
    assert normalising.arrived is as_they_are
    stored = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(normalising.prepare(stored), normalise(stored, info.mean, info.std))
    assert torch.equal(pickle.loads(pickle.dumps(normalising.prepare))(stored), normalising.prepare(stored))
    on_gpu = GpuGear(ELSEWHERE, HostSide(), DeviceClock(FakeEvent)).normalising(config, info)
    assert isinstance(on_gpu.arrived, NormalisedBytes)


def test_a_loader_process_is_told_to_leave_bytes_as_they_are() -> None:
    config, info, normalising = chosen("data.augment=crop_flip")
    source = BatchSource(config, 3, info, normalising.prepare)
    batch = pickle.loads(pickle.dumps(source._training))[2]
    assert batch.images.dtype == torch.uint8 and torch.equal(batch.images, source.training_batch(2).images)
