"""Data as people bring them: read rightly, or refused in one line that names the file, before anything starts."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.reporting.tables import headline
from greedypipe.workers.data.sets.registry import DATA_FAMILY, open_data
from tests.pictures import CLASSES, KINDS, pattern, write_colours, write_part, write_png_header

ANIMALS = {"cat": (200, 10, 10), "dog": (10, 200, 10)}


@pytest.fixture(autouse=True)
def _nothing_waits_forever() -> Iterator[None]:
    """A pipe among the images would be waited for in every process, before there is anybody to notice."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def plan(root: Path, *overrides: str) -> Plan:
    keys = ["data.name=image_folder", f"data.root={root}", "data.batch_size=4", "data.augment=none", "data.drop_last=true"]
    return make_plan(load_config(None, [*keys, "model.name=mlp", "model.hidden=8", "partition.blocks=2", *overrides]), 2)


def training_part(root: Path, **keys: object) -> tuple[Tensor, Tensor]:
    """All training images uint8 [N, C, H, W], and labels."""
    data = open_data(DATA_FAMILY.choose({"name": "image_folder", "root": str(root), "batch_size": 4, **keys}))
    train, _ = data.load()
    return train.gather(torch.arange(len(train)))


def test_one_grey_image_that_sorts_first_does_not_turn_a_colour_set_grey(tmp_path: Path) -> None:
    """Public report: classes that differ in colour alone, of equal luminance."""
    root = write_colours(tmp_path / "d", {"bluish": (60, 100, 200), "reddish": (180, 70, 55)}, train=16, test=8)
    Image.new("L", (8, 8), 96).save(root / "train/bluish/a00.png")
    found = plan(root)
    assert found.data.input_shape == (3, 8, 8) and "images 3 x 8 x 8" in headline(found)
    assert "note: 1 of 49 images are grey and are read as colours" in headline(found)


@pytest.mark.parametrize("extension", ["png", "tiff", "pgm"])
def test_16_bits_are_scaled_and_not_clipped(extension: str, tmp_path: Path) -> None:
    """Public report: grey PNGs of a microscope, clipped to white."""
    for part in ("train", "test"):
        for name, level in (("bright", 48000), ("dark", 9000)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.full((8, 8), level + number, np.uint16)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.{extension}")
    images, labels = training_part(tmp_path)
    assert images.shape[1:] == (1, 8, 8)
    assert [images[labels == label].unique().tolist() for label in (0, 1)] == [[48000 >> 8], [9000 >> 8]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_refused_by_name(dtype: type, tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", ANIMALS)
    Image.fromarray(np.ones((8, 8), dtype)).save(root / "train/dog/z.tiff")
    with pytest.raises(
        ConfigError, match=r"^cannot read the image .*dog/z\.tiff: got .* pixels \(mode .\), allowed: 8 or 16"
    ):
        plan(root)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
def test_the_exif_orientation_is_obeyed(orientation: int, extension: str, tmp_path: Path) -> None:
    """Public report: portraits, some of them stored on their side."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels)
    stored = stored if orientation == 1 else stored.transpose(undo[orientation])
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            stored.save(tmp_path / part / name / f"0.{extension}", exif=exif, quality=95)
    images, _ = training_part(tmp_path, batch_size=2)
    assert images.shape == (2, 3, 16, 8)
    assert (images.int() - torch.from_numpy(pixels).permute(2, 0, 1).int()).abs().max() < 40


def test_what_lies_below_transparency_is_white(tmp_path: Path) -> None:
    """Public report: stickers, with colours that nobody sees below the transparency."""
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = draw.integers(0, 255, (8, 8, 4)).astype(np.uint8)
                pixels[..., 3] = 0
                pixels[2:6, 2:6] = (200, 30, 30, 255)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    images, _ = training_part(tmp_path)
    assert (images == images[:1]).all()
    assert images[0, :, 0, 0].tolist() == [255] * 3 and images[0, :, 3, 3].tolist() == [200, 30, 30]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_file_shows_what_was_drawn(kind: str, channels: int, tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_part(tmp_path / part, CLASSES, 1, [kind])
    images, labels = training_part(tmp_path, channels=channels)
    assert images.shape == (3, channels, 16, 16) and labels.tolist() == [0, 1, 2]
    bright = images.float().mean(1) > 128
    for seen, name in zip(bright, CLASSES, strict=True):
        drawn = torch.from_numpy(pattern(name, 0) > 128)
        assert (seen == drawn).float().mean() > 0.8


@pytest.mark.parametrize("name", ["a.png", "z.png"])
def test_an_image_of_too_many_pixels_is_named(name: str, tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", ANIMALS)
    for width, height in ((20000, 20000), (11000, 11000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)):
        write_png_header(root / "train/cat" / name, width, height)
        with pytest.raises(ConfigError, match=rf"^cannot read the image .*train/cat/{name}: ") as refusal:
            plan(root, "data.image_size=8")
        assert len(str(refusal.value).splitlines()) == 1


def pipe(root: Path) -> None:
    os.mkfifo(root / "train/dog/005a.jpg")


def first_pipe(root: Path) -> None:
    os.mkfifo(root / "train/cat/0.jpg")


def device(root: Path) -> None:
    os.symlink("/dev/zero", root / "train/cat/0.jpg")


def link_to_nothing(root: Path) -> None:
    os.symlink("/nope", root / "train/cat/0.jpg")


def link_to_the_part(root: Path) -> None:
    os.symlink("..", root / "train/cat/all")


def links_to_themselves(root: Path) -> None:
    os.symlink(".", root / "train/cat/l1")
    os.symlink(".", root / "train/cat/l2")


def link_to_everything(root: Path) -> None:
    os.symlink("/", root / "train/everything")


def class_twice(root: Path) -> None:
    os.symlink("cat", root / "train/kitten")


def train_as_test(root: Path) -> None:
    shutil.rmtree(root / "test")
    os.symlink("train", root / "test")


def postscript(root: Path) -> None:
    (root / "train/dog/004.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(x) run\n")


def text(root: Path) -> None:
    (root / "train/dog/fake.jpg").write_text("this is text")


def empty(root: Path) -> None:
    (root / "train/dog/empty.jpg").write_bytes(b"")


def cut_off(root: Path) -> None:
    content = (root / "train/dog/i03.png").read_bytes()
    (root / "train/dog/i03.png").write_bytes(content[: len(content) // 2 + 8])


def cut_off_jpeg(root: Path) -> None:
    Image.effect_noise((64, 64), 99).resize((8, 8)).save(root / "train/dog/j.jpg", quality=95)
    content = (root / "train/dog/j.jpg").read_bytes()
    (root / "train/dog/j.jpg").write_bytes(content[:-20])


def empty_class(root: Path) -> None:
    (root / "train/eel").mkdir()


def unknown_in_test(root: Path) -> None:
    shutil.copytree(root / "test/dog", root / "test/fox")


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def one_class(root: Path) -> None:
    shutil.rmtree(root / "train/dog")
    shutil.rmtree(root / "test/dog")


def damaged_tiff(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "train/dog/0.tiff")
    content = bytearray((root / "train/dog/0.tiff").read_bytes())
    content[8:] = b"\xff" * (len(content) - 8)
    (root / "train/dog/0.tiff").write_bytes(content)


def control_characters(root: Path) -> None:
    for part in ("train", "test"):
        (root / part / "dog").rename(root / part / "d\x1b[31m\nog")
    (root / "train/d\x1b[31m\nog/i00.png").write_bytes(b"junk")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (pipe, "train/dog/005a.jpg is a device, pipe or socket"),
        (first_pipe, "train/cat/0.jpg is a device, pipe or socket"),
        (device, "train/cat/0.jpg is a device, pipe or socket"),
        (link_to_nothing, "train/cat/0.jpg is a link to nothing"),
        (link_to_the_part, "train/cat/all is a link to"),
        (links_to_themselves, "train/cat/l2 is a link to"),
        (link_to_everything, "train/everything is a link to /,"),
        (class_twice, "train/kitten is a link to"),
        (train_as_test, "test is a link to"),
        (postscript, "train/dog/004.png: it is no image of the kinds"),
        (text, "train/dog/fake.jpg: it is no image of the kinds"),
        (empty, "train/dog/empty.jpg: it is no image of the kinds"),
        (cut_off, "train/dog/i03.png: "),
        (cut_off_jpeg, "train/dog/j.jpg: image file is truncated"),
        (empty_class, "train/eel holds no image"),
        (unknown_in_test, "test has class folders besides the known classes cat, dog: fox"),
        (no_test, "data.test_share=0.2"),
        (one_class, "holds only the class folder cat"),
        (damaged_tiff, "train/dog/0.tiff: "),
        (control_characters, r"train/d\x1b[31m\nog/i00.png"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_it(
    spoil: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    root = write_colours(tmp_path / "d", ANIMALS)
    spoil(root)
    with pytest.raises(ConfigError) as refusal:
        plan(root)
    assert named in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_hidden_files_and_what_systems_put_there_are_no_data(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", ANIMALS)
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git"):
        for part in ("", "train", "test", "train/cat"):
            shutil.copytree(root / "test/dog", root / part / name)
    for name in ("._i00.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (root / "train/cat" / name).write_bytes(b"\0\5\x16\7")
    found = plan(root).data
    assert (found.classes, found.class_samples, found.test_samples) == (("cat", "dog"), (8, 8), 8)
    assert found.notes == ()


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", ANIMALS)
    (root / "train/dog").rename(tmp_path / "dogs")
    os.symlink(tmp_path / "dogs", root / "train/dog")
    assert plan(root).data.class_samples == (8, 8)


def test_what_is_left_out_or_missing_is_said(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", ANIMALS | {"eel": (10, 10, 200)})
    shutil.rmtree(root / "test/eel")
    (root / "train/dog/phone.heic").write_bytes(b"x")
    shutil.copy(root / "train/dog/i00.png", root / "train/loose.png")
    found = plan(root)
    for note in ("left out: 1 x .heic", "left out, outside class folders: 1, e.g. ", "no held-out image of eel"):
        assert f"note: {note}" in headline(found)
    assert "3 classes: cat (8), dog (8), eel (8); pixels minus 0.485 0.456 0.406, over 0.229 0.224 0.225" in headline(found)


def test_damaged_metadata_do_not_spoil_an_image(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", ANIMALS)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "train/cat/a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert len(training_part(root)[0]) == 17
