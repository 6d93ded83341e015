"""Loading of every kind of data set into its two parts."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greedypipe.workers.data.sets.image_folder import FolderImages
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet
from greedypipe.workers.data.sets.registry import DATA_FAMILY, open_data


def data(name: str, **keys: object) -> DataSet:
    return open_data(DATA_FAMILY.choose({"name": name, **keys}))


def write_folder(root: Path, size: int = 8) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def test_gather_returns_copies_in_the_order_asked_for() -> None:
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    store = InMemoryImages(images, torch.tensor([5, 6, 7, 8]))
    gathered, labels = store.gather(torch.tensor([3, 0]))
    gathered.zero_()
    assert labels.tolist() == [8, 5] and images.flatten().tolist() == [0, 1, 2, 3]


def test_digits_are_the_scaled_images_of_scikit_learn_each_once() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    train, test = data("digits").load()
    original = (datasets.load_digits().images * 15).astype(np.uint8).reshape(1797, 64)
    loaded = torch.cat([train.images, test.images]).view(1797, 64).numpy()
    assert sorted(map(bytes, loaded)) == sorted(map(bytes, original))
    assert (len(train), len(test)) == (1438, 359) and loaded.max() == 240


def test_the_normalisation_of_digits_is_that_of_their_training_part() -> None:
    train, _ = data("digits").load()
    info, pixels = data("digits").describe(), train.images.double() / 255
    assert info.mean == pytest.approx([pixels.mean().item()], abs=1e-4)
    assert info.std == pytest.approx([pixels.std().item()], abs=1e-4)


def test_synthetic_images_are_the_same_in_every_process_and_have_the_shape_asked_for() -> None:
    found = data("synthetic", shape=[2, 6, 8], classes=3, samples=20)
    (train, test), (again, _) = found.load(), found.load()
    assert train.images.shape == (20, 2, 6, 8) and test.images.shape == (4, 2, 6, 8)
    assert torch.equal(train.images, again.images) and torch.equal(train.labels, again.labels)
    assert set(train.labels.tolist()) == {0, 1, 2}


def test_synthetic_classes_can_be_told_apart_on_held_out_images() -> None:
    train, test = data("synthetic", shape=[1, 8, 8], classes=4, samples=400).load()
    centres = torch.stack([train.images[train.labels == c].float().mean(0).flatten() for c in range(4)])
    nearest = torch.cdist(test.images.float().flatten(1), centres).argmin(1)
    assert (nearest == test.labels).float().mean() > 0.9


def test_synthetic_noise_differs_between_samples_of_a_class() -> None:
    train, _ = data("synthetic", classes=2, samples=10).load()
    assert not torch.equal(train.images[0], train.images[2])


def test_a_small_image_folder_is_decoded_into_memory(tmp_path: Path) -> None:
    write_folder(tmp_path)
    train, test = data("image_folder", root=str(tmp_path)).load()
    assert isinstance(train, InMemoryImages) and isinstance(test, InMemoryImages)
    assert train.images.shape == (6, 3, 8, 8) and test.labels.tolist() == [0, 0, 1, 1]


def test_an_image_folder_above_the_limit_stays_on_disk_and_gives_the_same_bits(tmp_path: Path) -> None:
    write_folder(tmp_path)
    kept, _ = data("image_folder", root=str(tmp_path), image_size=6).load()
    read, _ = data("image_folder", root=str(tmp_path), image_size=6, memory_limit_mb=0).load()
    assert isinstance(read, FolderImages)
    assert all(map(torch.equal, read.gather(torch.arange(6)), (kept.images, kept.labels)))


def test_a_folder_of_cifar10_jpegs_loads_whole() -> None:
    root = os.environ.get("GREEDYPIPE_CIFAR10_JPEG")
    if root is None:
        pytest.skip("GREEDYPIPE_CIFAR10_JPEG names no folder")
    found = data("image_folder", root=root, batch_size=128)
    found.check()
    train, test = found.load()
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10 and test.labels.bincount().tolist() == [1000] * 10
    pixels = train.images[::10].double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(found.describe().mean, abs=0.01)
