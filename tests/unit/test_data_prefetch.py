"""Loader processes: the bits of the calling process, kept between readings, ended by close."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greedypipe.workers.data.sets.image_folder import ImageFolderConfig
from greedypipe.workers.data.source import BatchSource, LoadedBatch


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Has the loader processes forked from one that has imported torch: 0.1 s each instead of 3 s."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision.transforms.v2", "greedypipe.workers.data.prefetch"])
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
        with pytest.raises(ValueError, match=r"cannot decode the image .*2\.jpg"):
            list(source.test_batches())
