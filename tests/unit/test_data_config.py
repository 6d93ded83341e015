"""The data section: what it refuses, and that every key changes something."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from PIL import Image
from pydantic import ValidationError

from greedypipe.workers.data import source as source_module
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.sets import archives
from greedypipe.workers.data.sets.registry import DATA_FAMILY, open_data
from greedypipe.workers.data.source import BatchSource

SYNTHETIC = {"name": "synthetic", "shape": [1, 16, 16], "samples": 23, "batch_size": 5}
FOLDER = {"name": "image_folder", "root": "{root}", "batch_size": 2, "augment": "none"}
IN_ORDER = SYNTHETIC | {"order": "curriculum", "difficulty": "{rising}", "pacing_start": 0.3, "pacing_steps": 1}
ARRAYS = {"name": "arrays", "file": "{arrays}", "keys": ["a", "b", "c", "d"], "batch_size": 2}
GLYPHS = {"name": "glyphs", "root": str(Path(get_data_path()) / "fonts" / "ttf"), "class_samples": 2}
FLAT = FOLDER | {"root": "{flat}", "test_share": 0.25}
OWN = {"name": "tests.unit.test_data_config:two_shades", "options": {"size": 4}, "batch_size": 2}


def two_shades(size: int) -> tuple[tuple[np.ndarray, list[int]], ...]:
    part = np.stack([np.full((1, size, size), shade, np.uint8) for shade in (0, 9)]), [0, 1]
    return part, part


def steps_per_epoch(config: DataConfig) -> object:
    return BatchSource(config, seed=0).steps_per_epoch


def first_images(config: DataConfig) -> object:
    return BatchSource(config, seed=0).training_batch(0).images.tolist()


def first_batches(config: DataConfig) -> object:
    source = BatchSource(config, seed=0)
    return [source.training_batch(number).images.tolist() for number in range(4)]


def described(config: DataConfig) -> object:
    return open_data(config).describe()


def kind_of_store(config: DataConfig) -> object:
    return type(open_data(config).load()[0])


def is_accepted(config: DataConfig) -> object:
    try:
        open_data(config).check()
    except ValueError:
        return False
    return True


def loader_processes(config: DataConfig) -> object:
    with mock.patch.object(source_module, "PrefetchedBatches") as prefetched:
        BatchSource(config, seed=0)
    return [call.args[1] for call in prefetched.call_args_list]


EFFECTS: dict[str, tuple[dict, object, Callable[[DataConfig], object]]] = {
    "name": ({}, "mnist", described),
    "root": (FOLDER, "{other}", described),
    "download": ({"name": "mnist", "root": "{other}"}, False, is_accepted),
    "batch_size": (SYNTHETIC, 6, steps_per_epoch),
    "augment": (SYNTHETIC, "crop_flip", first_images),
    "views": (SYNTHETIC, 2, first_images),
    "pretext": (SYNTHETIC, "mask", first_images),
    "order": (IN_ORDER, "anti_curriculum", first_images),
    "difficulty": (IN_ORDER, "{falling}", first_images),
    "pacing_start": (IN_ORDER, 0.9, first_batches),
    "pacing_growth": (IN_ORDER, 3.0, first_batches),
    "pacing_steps": (IN_ORDER, 2, first_batches),
    "set_seed": ({"name": "mnist_1d"}, 43, first_images),
    "class_samples": (GLYPHS, 3, described),
    "file": (ARRAYS, "{others}", described),
    "keys": (ARRAYS, ["c", "d", "a", "b"], described),
    "calibration_samples": (SYNTHETIC, 4, described),
    "validation": (SYNTHETIC, 0.2, described),
    "mean": (SYNTHETIC, [0.25], first_images),
    "std": (SYNTHETIC, [0.25001], first_images),
    "test_share": (FLAT, 0.5, described),
    "channels": (FOLDER, 1, described),
    "drop_last": (SYNTHETIC, True, steps_per_epoch),
    "image_size": (FOLDER, 6, described),
    "shape": (SYNTHETIC, [3, 8, 8], described),
    "classes": (SYNTHETIC, 3, described),
    "samples": (SYNTHETIC, 30, described),
    "options": (OWN, {"size": 5}, described),
    "loader_workers": (FOLDER | {"memory_limit_mb": 0}, 2, loader_processes),
    "memory_limit_mb": (FOLDER, 0, kind_of_store),
}


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, str]:
    """Two image folders of different image sizes and one of class folders alone; how hard samples are; and arrays."""
    for number in range(8):
        path = tmp_path / "flat" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    for name, size in (("root", 8), ("other", 9)):
        for path in ("train/a/0.png", "train/a/1.png", "train/b/2.png", "test/b/3.png"):
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(tmp_path / name / path)
    rising = np.arange(23, dtype=np.float32)
    for name, hardness in (("rising", rising), ("falling", rising[::-1])):
        np.save(tmp_path / f"{name}.npy", hardness)
    for name, count in (("arrays", 4), ("others", 6)):
        train, test = (
            (np.arange(rows * 64, dtype=np.uint8).reshape(rows, 1, 8, 8), np.arange(rows) % 2) for rows in (count, 2)
        )
        np.savez(tmp_path / f"{name}.npz", a=train[0], b=train[1], c=test[0], d=test[1])
    places = {"root": "root", "other": "other", "flat": "flat", "rising": "rising.npy", "falling": "falling.npy"}
    places |= {"arrays": "arrays.npz", "others": "others.npz"}
    return {name: str(tmp_path / place) for name, place in places.items()}


@pytest.mark.parametrize(
    "key", {key: None for variant in (*DATA_FAMILY.variants.values(), DATA_FAMILY.own) for key in variant.model_fields}
)
def test_changing_a_key_changes_something(key: str, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "require_torchvision", lambda module: None)
    base, value, observe = EFFECTS[key]
    settings = [base, base | {key: value}]
    seen = [
        observe(DATA_FAMILY.choose({k: v.format(**roots) if isinstance(v, str) else v for k, v in one.items()}))
        for one in settings
    ]
    assert seen[0] != seen[1]


def test_flipping_is_more_than_cropping_and_cropping_more_than_nothing() -> None:
    seen = [
        torch.tensor(first_images(DATA_FAMILY.choose(SYNTHETIC | {"augment": a}))) for a in ("none", "crop", "crop_flip")
    ]
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"name": "imagefolder"}, "nearest is 'image_folder'; allowed: digits, cifar10"),
        ({"augment": "flip"}, "'none', 'crop', 'crop_flip', 'resized_crop' or"),
        ({"validation": 1.5}, "a share below 1, or a whole number of samples"),
        ({"validation": -1}, "greater than or equal to 0"),
        ({"mean": [float("nan")]}, "finite"),
        ({"std": [0.0]}, "greater than 0"),
        (FOLDER | {"channels": 2}, "0, 1 or 3"),
        (FOLDER | {"test_share": 1}, "less than 1"),
        ({"name": "synthetic", "shape": []}, "at least 1 item"),
        ({"name": "synthetic", "shape": [3, 0, 32]}, "greater than or equal to 1"),
        ({"name": "synthetic", "samples": 4}, "greater than or equal to 5"),
        ({"name": "synthetic", "classes": 1}, "greater than or equal to 2"),
        ({"bach_size": 4}, "Extra inputs are not permitted"),
        ({"root": "data"}, "Extra inputs are not permitted"),
        ({"name": "cifar10", "image_size": 4}, "Extra inputs are not permitted"),
        (OWN | {"options": {"siz": 4}}, "did you mean size"),
        (OWN | {"name": "tests.unit.test_data_config:two_shade"}, "did you mean 'two_shades'"),
    ],
)
def test_impossible_values_are_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DATA_FAMILY.choose(settings)


def test_a_resolved_configuration_can_be_read_back() -> None:
    for config in (DATA_FAMILY.default(), DATA_FAMILY.choose(SYNTHETIC), DATA_FAMILY.choose(OWN)):
        assert DATA_FAMILY.choose(config.model_dump()) == config


def test_every_key_is_described_in_one_line() -> None:
    for variant in (*DATA_FAMILY.variants.values(), DATA_FAMILY.own):
        for name, field in variant.model_fields.items():
            assert name == "name" or (field.description and "\n" not in field.description), name
