"""What is known of a data set before it is loaded, and what stops a run before it starts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from greedypipe.workers.data.folder_listing import list_folder
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.sets import archives, image_folder
from greedypipe.workers.data.sets.interface import DataSet
from greedypipe.workers.data.sets.registry import DATA_FAMILY, open_data


def data(name: str = "digits", **keys: object) -> DataSet:
    return open_data(DATA_FAMILY.choose({"name": name, **keys}))


def write_folder(root: Path, pixels: np.ndarray, train_samples: int = 4) -> str:
    for number in range(train_samples):
        path = root / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (root / "test/class1").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "test/class1/0.png")
    return str(root)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_published_sets_are_described_without_their_files(name: str, tmp_path: Path) -> None:
    info = data(name, root=str(tmp_path / "absent")).describe()
    assert len(info.mean) == len(info.std) == info.input_shape[0]
    assert info.num_classes == len(set(info.classes)) == (100 if name == "cifar100" else 10)
    assert info.train_samples > info.test_samples > 0


def test_synthetic_images_are_described_by_their_keys() -> None:
    info = data(name="synthetic", shape=[2, 5, 7], classes=3, samples=11).describe()
    assert info == DataInfo((2, 5, 7), ("0", "1", "2"), 11, 2, (0.5, 0.5), (0.25, 0.25))


@pytest.mark.parametrize(
    ("pixels", "shape", "mean"),
    [
        (np.zeros((32, 32, 3), np.uint8), (3, 32, 32), (0.4914, 0.4822, 0.4465)),
        (np.zeros((20, 24, 3), np.uint8), (3, 20, 24), (0.485, 0.456, 0.406)),
        (np.zeros((20, 24), np.uint8), (1, 20, 24), (0.449,)),
    ],
)
def test_an_image_folder_is_described_by_its_names_and_headers(
    tmp_path: Path, pixels: np.ndarray, shape: tuple[int, int, int], mean: tuple[float, ...]
) -> None:
    info = data(name="image_folder", root=write_folder(tmp_path, pixels)).describe()
    assert (info.input_shape, info.mean) == (shape, mean)
    assert (info.num_classes, info.train_samples, info.test_samples) == (2, 4, 1)
    assert len(info.std) == len(mean)


def test_describing_an_image_folder_decodes_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = data(name="image_folder", root=write_folder(tmp_path, noise))
    for path in tmp_path.rglob("*.png"):
        content = path.read_bytes()
        path.write_bytes(content[:80] + content[-12:])  # header and end are whole, most pixels are gone
    assert found.describe().input_shape == (3, 8, 8)
    with pytest.raises(ValueError, match="cannot read the image"):
        found.load()


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_data_that_need_nothing_pass_the_check(name: str) -> None:
    assert data(name).check().train_samples >= 1000


def test_an_image_folder_is_listed_once_to_be_checked_described_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[str] = []
    monkeypatch.setattr(
        image_folder, "list_folder", lambda root, share: (listings.append(root), list_folder(root, share))[1]
    )
    found = data("image_folder", root=write_folder(tmp_path, np.zeros((8, 8, 3), np.uint8)), batch_size=2)
    assert found.check() is found.describe()
    found.load()
    assert listings == [str(tmp_path)]


def test_a_missing_image_folder_fails_the_check(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        data(name="image_folder", root=str(tmp_path / "absent")).check()


def test_missing_archives_fail_the_check(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set data\.download=true"):
        data(name="cifar10", root=str(tmp_path), download=False).check()


def test_missing_archives_that_may_be_downloaded_pass_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []
    monkeypatch.setattr(archives, "require_torchvision", asked_for.append)
    data(name="cifar10", root=str(tmp_path), download=True).check()
    assert asked_for == ["torchvision.datasets"]
    assert list(tmp_path.iterdir()) == []


def test_digits_without_scikit_learn_fail_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="`pip install scikit-learn`"):
        data(name="digits").check()


def test_a_batch_larger_than_the_training_set_fails_the_check() -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size=1439 .*allowed: 2 to 1438"):
        data(batch_size=1439).check()
    data(batch_size=1438).check()


def test_a_last_batch_of_one_sample_fails_the_check_unless_it_is_dropped() -> None:
    with pytest.raises(ValueError, match=r"leaves 1 of 101 samples.*data\.drop_last=true"):
        data(name="synthetic", samples=101, batch_size=10).check()
    data(name="synthetic", samples=101, batch_size=10, drop_last=True).check()
    data(name="synthetic", samples=102, batch_size=10).check()


@pytest.mark.parametrize(("augment", "limit_mb", "is_refused"), [("crop", 0, True), ("none", 0, False), ("crop", 1, False)])
def test_only_a_folder_too_big_for_memory_needs_torchvision_to_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: str, limit_mb: int, is_refused: bool
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    root = write_folder(tmp_path, np.zeros((8, 8, 3), np.uint8))
    found = data(name="image_folder", root=root, batch_size=2, augment=augment, memory_limit_mb=limit_mb)
    if is_refused:
        with pytest.raises(ValueError, match="install torch and torchvision from the same index"):
            found.check()
    else:
        found.check()
        assert found.describe().train_samples == 4


def test_own_normalisation_takes_the_place_of_the_sets() -> None:
    info = data(name="synthetic", shape=[2, 5, 7], mean=[0.1, 0.2], std=[0.3, 0.4]).check()
    assert (info.mean, info.std) == ((0.1, 0.2), (0.3, 0.4))
    with pytest.raises(ValueError, match=r"data\.mean: got 1 numbers, allowed: 2, one per channel"):
        data(name="synthetic", shape=[2, 5, 7], mean=[0.1]).check()
