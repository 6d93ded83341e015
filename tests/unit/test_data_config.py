"""The data section: what it refuses, and that every key changes something."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from greedypipe.workers.data import archives
from greedypipe.workers.data import source as source_module
from greedypipe.workers.data.catalog import check, describe
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.images import load
from greedypipe.workers.data.source import BatchSource

SYNTHETIC = {"name": "synthetic", "shape": [1, 16, 16], "samples": 23, "batch_size": 5}
FOLDER = {"name": "image_folder", "batch_size": 2, "augment": "none"}


def steps_per_epoch(config: DataConfig) -> object:
    return BatchSource(config, seed=0).steps_per_epoch


def first_images(config: DataConfig) -> object:
    return BatchSource(config, seed=0).training_batch(0).images.tolist()


def kind_of_store(config: DataConfig) -> object:
    return type(load(config)[0])


def is_accepted(config: DataConfig) -> object:
    try:
        check(config)
    except ValueError:
        return False
    return True


def loader_processes(config: DataConfig) -> object:
    with mock.patch.object(source_module, "PrefetchedBatches") as prefetched:
        BatchSource(config, seed=0)
    return [call.args[1] for call in prefetched.call_args_list]


EFFECTS: dict[str, tuple[dict, object, Callable[[DataConfig], object]]] = {
    "name": ({}, "mnist", describe),
    "root": (FOLDER, "{other}", describe),
    "download": ({"name": "mnist", "root": "{other}"}, False, is_accepted),
    "batch_size": (SYNTHETIC, 6, steps_per_epoch),
    "augment": (SYNTHETIC, "crop_flip", first_images),
    "calibration_samples": (SYNTHETIC, 4, describe),
    "drop_last": (SYNTHETIC, True, steps_per_epoch),
    "image_size": (FOLDER, 6, describe),
    "shape": (SYNTHETIC, [3, 8, 8], describe),
    "classes": (SYNTHETIC, 3, describe),
    "samples": (SYNTHETIC, 30, describe),
    "loader_workers": (FOLDER | {"memory_limit_mb": 0}, 2, loader_processes),
    "memory_limit_mb": (FOLDER, 0, kind_of_store),
}


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, str]:
    """Two image folders of different image sizes."""
    for name, size in (("root", 8), ("other", 9)):
        for path in ("train/a/0.png", "train/a/1.png", "train/b/2.png", "test/b/3.png"):
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(tmp_path / name / path)
    return {name: str(tmp_path / name) for name in ("root", "other")}


@pytest.mark.parametrize("key", DataConfig.model_fields)
def test_changing_a_key_changes_something(key: str, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "require_torchvision", lambda module: None)
    base, value, observe = EFFECTS[key]
    base = {"root": roots["root"]} | base
    settings = [base, base | {key: value}]
    configs = [DataConfig(**{k: v.format(**roots) if k == "root" else v for k, v in each.items()}) for each in settings]
    assert observe(configs[0]) != observe(configs[1])


def test_flipping_is_more_than_cropping_and_cropping_more_than_nothing() -> None:
    seen = [torch.tensor(first_images(DataConfig(**SYNTHETIC, augment=a))) for a in ("none", "crop", "crop_flip")]
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"name": "imagenet"}, "'digits', 'cifar10'"),
        ({"augment": "flip"}, "'none', 'crop' or 'crop_flip'"),
        ({"name": "synthetic", "shape": [3, 32]}, "at least 3 items"),
        ({"name": "synthetic", "shape": [3, 0, 32]}, "greater than or equal to 1"),
        ({"name": "synthetic", "samples": 4}, "greater than or equal to 5"),
        ({"name": "synthetic", "classes": 1}, "greater than or equal to 2"),
        ({"bach_size": 4}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_values_are_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DataConfig(**settings)


def test_a_resolved_configuration_can_be_read_back() -> None:
    config = DataConfig(**SYNTHETIC)
    assert DataConfig(**config.model_dump()) == config
    assert DataConfig(**DataConfig().model_dump()) == DataConfig()


def test_every_key_is_described_in_one_line() -> None:
    for name, field in DataConfig.model_fields.items():
        assert field.description and "\n" not in field.description, name
