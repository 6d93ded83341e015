"""Loader processes: the bits of the calling process, kept between readings, ended by close."""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greedypipe.workers.data.prefetch import FILES_PER_PROCESS
from greedypipe.workers.data.sets.image_folder import ImageFolderConfig
from greedypipe.workers.data.source import BatchSource, LoadedBatch
from greedypipe.workers.lifeline import STOP_SIGNALS, start_fork_server


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Has the loader processes forked from one that has imported torch: 0.1 s each instead of 3 s."""
    start_fork_server(["torch", "torchvision.transforms.v2", "greedypipe.workers.data.prefetch"])
    before = children()
    yield
    assert children() == before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (12, 10 + number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path


def open_source(root: Path, loader_workers: int, augment: str = "none") -> BatchSource:
    config = ImageFolderConfig(
        root=str(root),
        image_size=8,
        batch_size=3,
        augment=augment,
        memory_limit_mb=0,
        loader_workers=loader_workers,
    )
    return BatchSource(config, seed=1)


def children() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def assert_same(left: LoadedBatch, right: LoadedBatch) -> None:
    assert left.batch_id == right.batch_id
    assert torch.equal(left.images, right.images) and torch.equal(left.labels, right.labels)


def test_two_loader_processes_give_the_bits_of_none(root: Path) -> None:
    pytest.importorskip("torchvision")
    alone, before = open_source(root, 0, "crop_flip"), torch.get_rng_state()
    with open_source(root, 2, "crop_flip") as source:
        training = source.training_batches(first=2)
        for batch_id in range(2, 9):
            assert_same(next(training), alone.training_batch(batch_id))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_reading_keeps_the_processes_and_drops_what_they_had_made(root: Path) -> None:
    others = children()
    with open_source(root, 2) as source:
        assert next(source.training_batches()).batch_id == 0
        processes = children() - others
        assert next(source.training_batches(first=11)).batch_id == 11
        assert children() - others == processes and len(processes) == 2


def test_held_out_batches_can_be_read_twice(root: Path) -> None:
    alone = open_source(root, 0)
    with open_source(root, 1) as source:
        for _ in range(2):
            for one, two in zip(source.test_batches(), alone.test_batches(), strict=True):
                assert_same(one, two)


def test_closing_ends_processes_whose_batches_are_still_held(root: Path) -> None:
    others = children()
    source = open_source(root, 1)
    training = source.training_batches()
    batch = next(training)
    source.close()
    source.close()
    assert children() == others
    assert_same(batch, source.training_batch(0))


def test_an_undecodable_image_is_named(root: Path) -> None:
    with open_source(root, 1) as source:
        (root / "test/dog/2.jpg").write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"\Acannot read the image .*2\.jpg: [^\n]*\Z"):
            list(source.test_batches())


def test_a_loader_process_that_dies_is_named_at_once(root: Path) -> None:
    others = children()
    with open_source(root, 1) as source:
        training = source.training_batches()
        next(training)
        (loader,) = children() - others
        assert loader is not None
        os.kill(loader, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(
            RuntimeError, match=rf"loader process {loader} was killed by signal SIGKILL before it had made batch"
        ):
            list(itertools.islice(training, 9))
        assert time.monotonic() - started < 2


def test_loader_processes_leave_signals_to_the_process_that_they_work_for(root: Path) -> None:
    others = children()
    with open_source(root, 2) as source:
        training = source.training_batches()
        # Both have begun: where an earlier test has started the fork server, they are deaf only then.
        taken = list(itertools.islice(training, 2))
        for loader in children() - others:
            for number in STOP_SIGNALS:
                os.kill(loader or 0, number)
        taken += itertools.islice(training, 20)
        assert [batch.batch_id for batch in taken] == list(range(22))


def test_an_error_of_a_batch_that_nobody_needs_any_more_is_not_raised(root: Path) -> None:
    with open_source(root, 1) as source:
        broken = root / "test/dog/2.jpg"
        whole = broken.read_bytes()
        broken.write_bytes(b"no image")
        assert next(source.test_batches()).batch_id == 0
        broken.write_bytes(whole)
        assert [batch.batch_id for batch in source.test_batches()] == [0, 1]


def test_a_batch_takes_nothing_from_dev_shm_and_its_memory_goes_with_it(root: Path) -> None:
    others = set(Path("/proc/self/maps").read_text().splitlines())

    def mapped() -> str:
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line not in others]
        return "".join(line for line in lines if "/dev/shm" in line or "memfd" in line)

    with open_source(root, 1) as source:
        files = len(os.listdir("/proc/self/fd"))
        training = source.training_batches()
        batch = next(training)
        assert "memfd:tensors" in mapped() and "/dev/shm" not in mapped()
        assert len(os.listdir("/proc/self/fd")) <= files + FILES_PER_PROCESS + 1
        del batch
        assert "memfd:tensors" not in mapped()
