"""Signals, vectors and images from an .npz file, MNIST-1D, and glyphs: described, read, and refused in one line."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.reporting.tables import headline
from greedypipe.pipeline.reference import train
from greedypipe.workers.data.fonts import Font, find_fonts, held_out
from greedypipe.workers.data.sets import glyphs
from greedypipe.workers.data.sets.interface import DataSet
from greedypipe.workers.data.sets.mnist_1d import SHAPES, make_signals
from greedypipe.workers.data.sets.registry import DATA_FAMILY, open_data
from greedypipe.workers.data.source import BatchSource

GENERATOR = np.random.default_rng(0)
LABELS = np.arange(20) % 4


def data(name: str, **keys: object) -> DataSet:
    return open_data(DATA_FAMILY.choose({"name": name, "batch_size": 4, **keys}))


def saved(path: Path, samples: np.ndarray, **arrays: Any) -> Path:
    own = {"x_train": samples, "y_train": LABELS, "x_test": samples[:5], "y_test": LABELS[:5]}
    np.savez(path, **(own | arrays))
    return path


@pytest.mark.parametrize("shape", [(3, 8, 6), (2, 40), (7,)])
def test_arrays_of_bytes_are_normalised_by_their_training_part(tmp_path: Path, shape: tuple[int, ...]) -> None:
    samples = GENERATOR.integers(0, 256, (20, *shape), dtype=np.uint8)
    found = data("arrays", file=str(saved(tmp_path / "a.npz", samples)))
    info = found.check()
    assert (info.input_shape, info.num_classes, info.train_samples, info.test_samples) == (shape, 4, 20, 5)
    assert info.class_samples == (5, 5, 5, 5) and info.has_images == (len(shape) == 3)
    source = BatchSource(found._config, 0)
    seen = torch.cat([source.training_batch(number).images for number in range(5)])
    assert seen.shape == (20, *shape) and abs(seen.mean()) < 0.02 and abs(seen.std() - 1) < 0.1
    (first, _) = source.test_batches()
    channels = (0, *range(2, 1 + len(shape))) if len(shape) > 1 else None
    scaled, axis = samples / 255.0, channels
    mean, std = scaled.mean(axis, keepdims=True), scaled.std(axis, keepdims=True)
    assert first.images.numpy() == pytest.approx(((scaled - mean) / std)[:4], abs=1e-5)


def test_floating_point_arrays_reach_the_network_as_they_are_and_classes_may_have_names(tmp_path: Path) -> None:
    signals = GENERATOR.normal(size=(20, 2, 9))
    keys = ["signals", "targets", "x_test", "y_test"]
    path = saved(tmp_path / "a.npz", signals, signals=signals, targets=LABELS, classes=np.array(["a", "bé", "c", "d"]))
    found = data("arrays", file=str(path), keys=keys)
    assert found.check().classes == ("a", "bé", "c", "d")
    (first, _) = BatchSource(found._config, 0).test_batches()
    assert torch.equal(first.images, torch.from_numpy(signals[:4]).float())


def test_other_contents_have_another_identity(tmp_path: Path) -> None:
    samples = GENERATOR.normal(size=(20, 3))
    one, same, other = (
        saved(tmp_path / f"{name}.npz", x) for name, x in zip("abc", [samples, samples, -samples], strict=True)
    )
    prints = [data("arrays", file=str(path)).describe().fingerprint for path in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]


class Anything:
    def __reduce__(self) -> Any:
        raise AssertionError("was pickled")


def no_npz(path: Path) -> None:
    path.write_bytes(b"\x80\x04K\x05.")


def objects(path: Path) -> None:
    saved(path, np.array([{"a": 1}] * 20, dtype=object))


def cut_off(path: Path) -> None:
    saved(path, GENERATOR.normal(size=(20, 3)))
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:150])


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no file": (lambda path: None, {}, "is no file: write one with numpy.savez"),
    "a pickle": (no_npz, {}, "is no .npz file"),
    "pickled objects": (objects, {}, "it must hold plain arrays, no objects"),
    "cut off": (cut_off, {}, "cannot be read ("),
    "missing arrays": (
        lambda path: np.savez(path, x_train=LABELS),
        {},
        "has no array y_train, x_test, y_test; it has x_train",
    ),
    "fewer labels": (lambda path: saved(path, np.zeros((20, 3)), y_train=LABELS[1:]), {}, "got 20 images and 19 labels"),
    "five dimensions": (lambda path: saved(path, np.zeros((20, 1, 1, 1, 1))), {}, "vectors [N, F]"),
    "names of fewer classes": (
        lambda path: saved(path, np.zeros((20, 3)), classes=np.array(["a"])),
        {},
        "allowed: 4 different texts, one per class",
    ),
    "crops of vectors": (
        lambda path: saved(path, np.zeros((20, 3))),
        {"augment": "crop"},
        "data.augment: got crop, allowed: none, for samples 3: no images",
    ),
    "a bar of bytes": (lambda path: saved(path, np.full((20, 2, 3), 7, np.uint8)), {}, "pixels are all 7"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    write, keys, expected = BAD[case]
    write(tmp_path / "a.npz")
    with pytest.raises(ValueError) as refusal:
        data("arrays", file=str(tmp_path / "a.npz"), **keys).check()
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "shape", "allowed"),
    [
        ("resnet20", "2,40", r"images \[C, H, W\], grey ones \[1, H, W\]; vgg, basic_cnn and mlp take signals, as"),
        ("resnet20", "40", r"images \[C, H, W\], grey ones \[1, H, W\]; mlp takes vectors, as"),
        ("vgg8b", "40", r"images \[C, H, W\] and signals \[C, T\]; mlp takes vectors, as"),
    ],
)
def test_samples_that_a_network_does_not_take_are_refused_in_one_line(
    name: str, shape: str, allowed: str, tmp_path: Path
) -> None:
    numbers = np.random.default_rng(0).normal(size=(8, *map(int, shape.split(",")))).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=numbers, y_train=np.arange(8) % 2, x_test=numbers, y_test=np.arange(8) % 2)
    overrides = ["data.name=arrays", f"data.file={tmp_path}/a.npz", "data.batch_size=4", f"model.name={name}"]
    with pytest.raises(ConfigError, match=rf"^model\.name: got {name} for samples of shape [\dx ]+, allowed: {allowed}"):
        make_plan(load_config(None, overrides), 1)


def test_signals_have_no_patches() -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.patches: got 4 for samples 1 x 40, allowed: 0: only images have patches$"
    ):
        make_plan(load_config(None, ["data.name=mnist_1d", "model.patches=4"]), 1)


def test_convolutions_learn_from_signals_with_every_head() -> None:
    """The default network, in one dimension."""
    for head in ("mlp_sr", "conv", "linear"):
        overrides = ["data.name=mnist_1d", "model.width=0.1", "partition.blocks=4", f"head.name={head}"]
        plan = make_plan(load_config(None, overrides), 4)
        blocks = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(4)]
        source = BatchSource(plan.config.data, 0, plan.data)
        batches = [source.training_batch(number) for number in range(3)]
        losses = train(blocks, ((one.images, one.labels) for one in batches))
        assert torch.tensor(losses).isfinite().all() and blocks[1].shapes.input == (16, 40)


def test_a_perceptron_learns_from_signals() -> None:
    plan = make_plan(load_config(None, ["data.name=mnist_1d", "model.name=mlp", "method.name=reconstruction"]), 2)
    assert "mlp on mnist_1d (4,000 + 1,000 samples 1 x 40)" in headline(plan)
    blocks = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(plan.blueprint.num_blocks)]
    assert [block.shapes.input for block in blocks][:2] == [(1, 40), (256,)]
    assert blocks[0].method.decoder(torch.zeros(2, 256)).shape == (2, 1, 40)


def test_the_signals_of_mnist_1d_follow_the_recipe() -> None:
    signals, labels = make_signals(42)
    assert signals.shape == (5000, 40) and signals.dtype == np.float32
    assert np.bincount(labels).tolist() == [500] * len(SHAPES)
    assert abs(signals.mean()) < 1e-6 and abs(signals.std() - 1) < 1e-6
    # Of the first signal as another program finds it that draws in the order of the published one.
    assert signals[0, :4] == pytest.approx(PUBLISHED, abs=1e-5)
    info = data("mnist_1d").check()
    assert (info.input_shape, info.train_samples, info.test_samples) == ((1, 40), 4000, 1000)
    train, test = data("mnist_1d").load()
    assert torch.equal(torch.cat([train.images, test.images])[:, 0], torch.from_numpy(signals))


PUBLISHED = [-0.332006, -0.47191, -0.778697, -1.009741]


@pytest.fixture
def fonts(tmp_path: Path) -> str:
    """Four links to a font of this machine under other names, and a file that is no font."""
    try:
        found = find_fonts("")
    except ValueError:
        pytest.skip("no fonts are installed")
    for number, font in enumerate(found[:4] * 4):
        (tmp_path / f"{number}.ttf").symlink_to(font.path)
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0\0\x10")
    return str(tmp_path)


def test_glyphs_are_drawn_with_fonts_that_the_test_part_does_not_share(fonts: str) -> None:
    found = data("glyphs", root=fonts, classes=10, class_samples=8, image_size=24)
    info = found.check()
    assert info.classes[0] == "0 U+0030" and len(set(info.classes)) == 10 and info.input_shape == (1, 24, 24)
    train, test = found.load()
    assert (len(train), len(test)) == (info.train_samples, info.test_samples) == (80, 20)
    assert train.images.flatten(1).amax(1).min() > 100 and test.images.flatten(1).amax(1).min() > 100
    again, _ = data("glyphs", root=fonts, classes=10, class_samples=8, image_size=24).load()
    assert torch.equal(again.images, train.images)
    trained_on, tested_on = held_out(find_fonts(fonts))
    assert not {font.path.name for font in trained_on} & {font.path.name for font in tested_on}
    assert "broken.ttf" not in {font.path.name for font in trained_on + tested_on}


def test_characters_that_look_alike_are_one_class(fonts: str) -> None:
    all_of_them = find_fonts(fonts)
    chosen = [Font(font.path, 0, frozenset(map(ord, "A\u0391 B\u0301"))) for font in all_of_them]
    assert glyphs._distinct(chosen[1:], chosen[:1], 10) == "AB"


def test_too_few_fonts_or_characters_are_refused_in_one_line(
    tmp_path: Path, fonts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"found 0 in .*`apt-get install fonts-dejavu`, or set data\.root$"):
        data("glyphs", root=str(tmp_path / "empty")).check()
    monkeypatch.setattr(glyphs, "_distinct", lambda train, test, most: "abcdefghijklm")
    with pytest.raises(ValueError, match=r"data\.classes: got 3000, allowed: 10 to 13, "):
        data("glyphs", root=fonts, classes=3000).check()
