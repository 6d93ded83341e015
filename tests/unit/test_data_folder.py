"""Image folders: what is listed, how images are brought to one shape, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greedypipe.workers.data.folder_listing import list_splits, sample_shape
from greedypipe.workers.data.pil_images import fit
from greedypipe.workers.data.sets.image_folder import FolderImages, fits_in_memory


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colour(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes; cat has three training images (one in a subfolder), dog two; two held-out images."""
    for number, name in enumerate(("train/cat/b.png", "train/cat/a.PNG", "train/cat/sub/c.png")):
        save_image(tmp_path / name, colour(number))
    for number, name in enumerate(("train/dog/1.png", "train/dog/2.png", "test/cat/9.png", "test/dog/8.png")):
        save_image(tmp_path / name, colour(10 + number))
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    return tmp_path


def test_classes_are_sorted_and_other_files_are_left_out(root: Path) -> None:
    classes, train, test = list_splits(str(root))
    assert classes == ["cat", "dog"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and test.labels.tolist() == [0, 1]


def test_samples_come_in_the_order_of_torchvision(root: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for name in ("z", "m", "b", "y", "a", "x"):
        save_image(root / "train/dog" / name / "0.png", colour(0))
    _, train, _ = list_splits(str(root))
    listed = [(train.path(index), int(train.labels[index])) for index in range(len(train))]
    assert listed == datasets.ImageFolder(str(root / "train")).samples


def test_val_is_the_held_out_part_when_there_is_no_test(root: Path) -> None:
    (root / "test").rename(root / "val")
    _, _, held_out = list_splits(str(root))
    assert held_out.folder == root / "val" and len(held_out) == 2


def test_a_held_out_part_keeps_the_labels_of_training_when_it_lacks_a_class(root: Path) -> None:
    (root / "test/cat/9.png").unlink()
    (root / "test/cat").rmdir()
    _, _, test = list_splits(str(root))
    assert test.labels.tolist() == [1]


def test_names_beyond_ascii_are_found_again(root: Path) -> None:
    save_image(root / "train/dog/größe 大.png", colour(99))
    _, train, _ = list_splits(str(root))
    assert train.path(len(train) - 1) == str(root / "train/dog/größe 大.png")
    assert os.path.exists(train.path(len(train) - 1))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda root: (root / "train").rename(root / "training"), "holds test, training; image_folder needs"),
        (lambda root: (root / "test").rename(root / "testing"), "holds testing, train; image_folder needs"),
        (lambda root: (root / "train/bird").mkdir(), "train/bird holds no image"),
        (lambda root: (root / "test/bird").mkdir(), "test has class folders that .*train lacks: bird"),
        (lambda root: (root / "test/dog/8.png").unlink(), "test/dog holds no image"),
    ],
)
def test_a_malformed_folder_is_refused_in_one_line(root: Path, damage: Callable[[Path], object], complaint: str) -> None:
    damage(root)
    with pytest.raises(ValueError, match=complaint) as refusal:
        list_splits(str(root))
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no folder; .*`mkdir -p .* && tar -xf ARCHIVE") as refusal:
        list_splits(str(tmp_path / "absent"))
    assert "\n" not in str(refusal.value)


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="train holds no class folder"):
        list_splits(str(tmp_path))
    save_image(tmp_path / "train/cat/a.png", colour(0))
    with pytest.raises(ValueError, match="test holds no class folder with images"):
        list_splits(str(tmp_path))


def test_the_first_image_gives_the_shape(root: Path) -> None:
    save_image(root / "train/cat/a.PNG", colour(0, height=5, width=7))
    _, train, _ = list_splits(str(root))
    assert sample_shape(train, image_size=0) == (3, 5, 7)
    assert sample_shape(train, image_size=16) == (3, 16, 16)


def test_a_grey_first_image_makes_all_samples_grey(root: Path) -> None:
    save_image(root / "train/cat/a.PNG", np.full((4, 4), 50, np.uint8))
    _, train, _ = list_splits(str(root))
    shape = sample_shape(train, image_size=0)
    images, _ = FolderImages(train, shape).gather(torch.arange(len(train)))
    assert shape == (1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [50, 0, 2, 10, 11]


def test_an_unreadable_first_image_is_refused_by_name(root: Path) -> None:
    (root / "train/cat/a.PNG").write_bytes(b"no image")
    _, train, _ = list_splits(str(root))
    with pytest.raises(ValueError, match=r"cannot read the image .*a\.PNG"):
        sample_shape(train, image_size=0)


def test_samples_are_decoded_with_channels_first(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    save_image(root / "train/dog/1.png", pixels)
    _, train, _ = list_splits(str(root))
    images, labels = FolderImages(train, (3, 4, 4)).gather(torch.tensor([3, 0]))
    assert np.array_equal(images[0], pixels.transpose(2, 0, 1))
    assert labels.tolist() == [1, 0] and images.is_contiguous()


@pytest.mark.parametrize("content", [b"no image", None])
def test_a_damaged_image_is_refused_by_name(root: Path, content: bytes | None) -> None:
    path = root / "train/dog/1.png"
    path.write_bytes(content if content is not None else path.read_bytes()[:50])
    _, train, _ = list_splits(str(root))
    with pytest.raises(ValueError, match=r"cannot decode the image .*1\.png"):
        FolderImages(train, (3, 4, 4)).decode(3)


def test_fitting_keeps_an_image_of_the_right_size() -> None:
    image = Image.fromarray(colour(7))
    assert fit(image, 4, 4) is image


def test_fitting_cuts_out_the_centre_without_distortion() -> None:
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, 4:8] = 255
    assert np.array_equal(fit(Image.fromarray(stripes), 4, 4), colour(255))


@pytest.mark.parametrize(("height", "width"), [(30, 41), (41, 30), (8, 8), (3, 100), (333, 500)])
def test_fitting_gives_the_size_asked_for_whatever_the_image(height: int, width: int) -> None:
    assert fit(Image.fromarray(colour(9, height, width)), 16, 24).size == (24, 16)
    assert np.array_equal(fit(Image.fromarray(colour(9, height, width)), 16, 24), colour(9, 16, 24))


def test_the_memory_limit_counts_decoded_bytes() -> None:
    assert fits_in_memory(1024, (1, 32, 32), limit_mb=1)
    assert not fits_in_memory(1025, (1, 32, 32), limit_mb=1)
