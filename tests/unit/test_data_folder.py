"""Image folders: what is listed, how images are brought to one shape, and what is refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greedypipe.workers.data.folder_listing import list_folder
from greedypipe.workers.data.folder_shape import sample_shape
from greedypipe.workers.data.image_files import fit
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
    found = list_folder(str(root))
    assert found.classes == ("cat", "dog") and found.validation is None and found.notes == ()
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1] and found.test.labels.tolist() == [0, 1]


def test_samples_come_in_the_order_of_torchvision(root: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for name in ("z", "m", "b", "y", "a", "x"):
        save_image(root / "train/dog" / name / "0.png", colour(0))
    train = list_folder(str(root)).train
    listed = [(train.path(index), int(train.labels[index])) for index in range(len(train))]
    assert listed == datasets.ImageFolder(str(root / "train")).samples


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_val_is_the_test_part_when_there_is_none_and_the_validation_part_when_there_is(name: str, root: Path) -> None:
    save_image(root / name / "dog/7.png", colour(0))
    found = list_folder(str(root))
    assert found.validation is not None and len(found.validation) == 1 and len(found.test) == 2
    assert found.validation.labels.tolist() == [1]
    (root / "test").rename(root / "other")
    found = list_folder(str(root))
    assert found.validation is None and found.test.folder == root / name and len(found.test) == 1


def test_a_test_part_keeps_the_labels_of_training_when_it_lacks_a_class_which_is_said(root: Path) -> None:
    (root / "test/cat/9.png").unlink()
    (root / "test/cat").rmdir()
    found = list_folder(str(root))
    assert found.test.labels.tolist() == [1] and found.untested == ["cat"]


def test_names_beyond_ascii_are_found_again(root: Path) -> None:
    save_image(root / "train/dog/größe 大.png", colour(99))
    train = list_folder(str(root)).train
    assert train.path(len(train) - 1) == str(root / "train/dog/größe 大.png")
    assert os.path.exists(train.path(len(train) - 1))


def test_a_class_has_one_name_however_its_accents_are_spelt(root: Path) -> None:
    (root / "train/dog").rename(root / "train/Gu\u0308te")
    (root / "test/dog").rename(root / "test/G\u00fcte")
    found = list_folder(str(root))
    assert found.classes == ("G\u00fcte", "cat") and found.test.labels.tolist() == [0, 1]
    save_image(root / "train/G\u00fcte/1.png", colour(0))
    with pytest.raises(ValueError, match="are one class by name"):
        list_folder(str(root))


def test_a_name_that_is_no_text_is_a_class_with_escapes(root: Path) -> None:
    for part in ("train", "test"):
        os.rename(root / part / "dog", os.fsencode(root / part) + b"/d\xff")
    found = list_folder(str(root))
    assert found.classes == ("cat", "d\\xff") and len(found.train) == 5


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            lambda root: (root / "train").rename(root / "training"),
            "holds test, training, not train/ and test/ .*; image_folder needs",
        ),
        (lambda root: (root / "test").rename(root / "testing"), r"holds testing, train, not .*data\.test_share=0\.2"),
        (lambda root: (root / "train/bird").mkdir(), "train/bird holds no image"),
        (lambda root: (root / "test/bird").mkdir(), "test has class folders besides the known classes cat, dog: bird"),
        (lambda root: (root / "test/dog/8.png").unlink(), "test/dog holds no image"),
        (lambda root: shutil.rmtree(root / "train/cat"), "train holds only the class folder dog, allowed: two classes"),
    ],
)
def test_a_malformed_folder_is_refused_in_one_line(root: Path, damage: Callable[[Path], object], complaint: str) -> None:
    damage(root)
    with pytest.raises(ValueError, match=complaint) as refusal:
        list_folder(str(root))
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no folder; .*`mkdir -p .* && tar -xf ARCHIVE") as refusal:
        list_folder(str(tmp_path / "absent"))
    assert "\n" not in str(refusal.value)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="train holds no class folder, allowed: two classes or more"):
        list_folder(str(tmp_path))
    for name in ("cat", "dog"):
        save_image(tmp_path / "train" / name / "a.png", colour(0))
    with pytest.raises(ValueError, match="test holds no class folder with images"):
        list_folder(str(tmp_path))


def test_one_folder_too_deep_or_too_high_is_said(root: Path) -> None:
    with pytest.raises(ValueError, match=rf"did you mean data\.root={root}\?"):
        list_folder(str(root / "train"))
    (root / "unpacked").mkdir()
    for part in ("train", "test"):
        shutil.copytree(root / part, root / "unpacked/inner" / part)
    with pytest.raises(ValueError, match=rf"did you mean data\.root={root}/unpacked/inner\?"):
        list_folder(str(root / "unpacked"))
    for part in ("train", "test"):
        (root / part).rename(root / "images")
        (root / part).mkdir()
        (root / "images").rename(root / part / "images")
    with pytest.raises(
        ValueError, match=r"only the class folder images.*one folder too deep\? .*train/images holds cat, dog"
    ):
        list_folder(str(root))


def test_a_share_is_held_out_of_every_class_of_a_folder_without_parts(root: Path) -> None:
    for number in range(6):
        save_image(root / "train/dog" / f"more{number}.png", colour(number))
    flat = list_folder(str(root / "train"), test_share=0.25)
    assert flat.classes == ("cat", "dog")
    assert np.bincount(flat.train.labels).tolist() == [2, 6] and np.bincount(flat.test.labels).tolist() == [1, 2]
    held_out = {flat.test.path(index) for index in range(3)}
    assert not held_out & {flat.train.path(index) for index in range(8)}
    save_image(root / "train/dog/one_more.png", colour(0))
    grown = list_folder(str(root / "train"), test_share=0.25)
    drawn = {grown.test.path(index) for index in range(len(grown.test))}
    assert len(held_out & drawn) >= 2, "an image stays on its side when others come"
    with pytest.raises(ValueError, match=r"data\.test_share: got 0\.25, allowed: 0: .* has a part to test on"):
        list_folder(str(root), test_share=0.25)
    shutil.rmtree(root / "test")
    assert len(list_folder(str(root), test_share=0.25).test) == 3


def test_other_files_have_another_digest(root: Path) -> None:
    before = list_folder(str(root)).train.digest
    assert list_folder(str(root)).train.digest == before
    save_image(root / "train/dog/2.png", np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8))
    assert list_folder(str(root)).train.digest != before


def test_the_images_give_the_shape_when_they_agree(root: Path) -> None:
    parts = list_folder(str(root)).parts
    assert sample_shape(parts, channels=0, image_size=0) == ((3, 4, 4), ())
    assert sample_shape(parts, channels=0, image_size=16) == ((3, 16, 16), ())
    assert sample_shape(parts, channels=1, image_size=0)[0] == (1, 4, 4)
    save_image(root / "test/cat/9.png", colour(0, height=5, width=7))
    with pytest.raises(ValueError, match=r"data\.image_size: .*4 x 4 .* and 7 x 5 \(.*9\.png\).*e\.g\. data\.image_size=5"):
        sample_shape(parts, channels=0, image_size=0)


def test_one_image_with_colours_makes_all_samples_colourful(root: Path) -> None:
    for path in root.rglob("*.[pP][nN][gG]"):
        if path.name != "2.png":
            Image.open(path).convert("L").save(path)
    parts = list_folder(str(root)).parts
    shape, notes = sample_shape(parts, channels=0, image_size=0)
    assert (shape, notes) == ((3, 4, 4), ("6 of 7 images are grey and are read as colours",))
    images, _ = FolderImages(parts[0], shape).gather(torch.arange(len(parts[0])))
    assert images[:, 0, 0, 0].tolist() == [1, 0, 2, 10, 11]


def test_unreadable_images_are_refused_by_name(root: Path) -> None:
    (root / "train/dog/2.png").write_bytes(b"no image")
    (root / "test/cat/9.png").write_bytes(b"")
    parts = list_folder(str(root)).parts
    with pytest.raises(ValueError, match=r"cannot read the image .*2\.png: it is no image.*; cannot read .*9\.png"):
        sample_shape(parts, channels=0, image_size=8)
    assert sample_shape(parts, channels=3, image_size=8)[0] == (3, 8, 8), "with both keys no header is read"


def test_samples_are_decoded_with_channels_first(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    save_image(root / "train/dog/1.png", pixels)
    train = list_folder(str(root)).train
    images, labels = FolderImages(train, (3, 4, 4)).gather(torch.tensor([3, 0]))
    assert np.array_equal(images[0], pixels.transpose(2, 0, 1))
    assert labels.tolist() == [1, 0] and images.is_contiguous()


@pytest.mark.parametrize("content", [b"no image", None])
def test_a_damaged_image_is_refused_by_name(root: Path, content: bytes | None) -> None:
    path = root / "train/dog/1.png"
    path.write_bytes(content if content is not None else path.read_bytes()[:50])
    train = list_folder(str(root)).train
    with pytest.raises(ValueError, match=r"cannot read the image .*1\.png"):
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
