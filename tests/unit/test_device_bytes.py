"""Bytes that are normalised on a stage's device: which samples travel so, and that they become what the CPU makes of
them."""

import pickle
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from greedypipe.launch.config.loader import load_config
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS
from greedypipe.workers.data.augment import as_stored, normalise
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.sets.registry import open_data
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.devices.clock import DeviceClock
from greedypipe.workers.devices.gear import CpuGear, GpuGear
from greedypipe.workers.devices.normalised import NormalisedBytes, Normalising, as_they_are, on_device
from greedypipe.workers.devices.side import HostSide
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


def test_nothing_is_read_from_the_device_and_all_operands_are_there() -> None:
    with FakeTensorMode():
        there = torch.device("cuda", 0)
        stored = torch.empty(4, 3, 8, 8, dtype=torch.uint8, device=there)
        info = DataInfo((3, 8, 8), ("one", "other"), 9, 9, MEANS, STDS)
        seen = NormalisedBytes(info, there, HostSide())({ACTIVATION: stored})[ACTIVATION]
        assert seen.device == there and seen.shape == stored.shape and seen.dtype == torch.float32


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
