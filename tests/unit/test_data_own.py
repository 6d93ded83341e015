"""A user's own data set: arrays and Datasets become batches, and what does not fit is refused in one line."""

import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.sets.registry import DATA_FAMILY, open_data
from greedypipe.workers.data.source import BatchSource, LoadedBatch

HERE = "tests.unit.test_data_own"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_data"
GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (20, 3, 8, 6), dtype=np.uint8)
LABELS = np.arange(20) % 4


class Listed(Dataset):
    """Makes any of its items from its number; picklable."""

    def __init__(self, item: Callable[[int], Any], length: int = 20, targets: Any = None) -> None:
        self._item, self._length = item, length
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._item(index)


def bytes_item(index: int) -> tuple[Tensor, int]:
    return torch.from_numpy(PIXELS[index]), int(LABELS[index])


def pil_item(index: int) -> tuple[Image.Image, Any]:
    return Image.fromarray(PIXELS[index].transpose(1, 2, 0)), LABELS[index]


def random_item(index: int) -> tuple[Tensor, int]:
    return torch.rand(3, 8, 6), int(LABELS[index])


def arrays() -> tuple[Any, Any]:
    return (PIXELS, LABELS), (PIXELS[:5], LABELS[:5])


def pairs(item: Callable[[int], Any]) -> tuple[Any, Any]:
    return Listed(item), Listed(item, length=5)


def bytes_dataset() -> tuple[Any, Any]:
    return pairs(bytes_item)


def pil_dataset() -> tuple[Any, Any]:
    return pairs(pil_item)


def random_dataset() -> tuple[Any, Any]:
    return pairs(random_item)


def unpicklable() -> tuple[Any, Any]:
    return pairs(lambda index: bytes_item(index))


def config(function: str, **keys: object) -> DataConfig:
    return DATA_FAMILY.choose({"name": f"{HERE}:{function}", "batch_size": 4, **keys})


def assert_same(left: LoadedBatch, right: LoadedBatch) -> None:
    assert left.batch_id == right.batch_id
    assert torch.equal(left.images, right.images) and torch.equal(left.labels, right.labels)


def training(function: str, count: int = 10, seed: int = 1, **keys: object) -> list[LoadedBatch]:
    with BatchSource(config(function, **keys), seed) as source:
        return list(itertools.islice(source.training_batches(), count))


@pytest.mark.parametrize("function", ["arrays", "bytes_dataset", "pil_dataset"])
def test_bytes_are_described_by_shape_classes_and_normalisation_of_the_training_part(function: str) -> None:
    info = open_data(config(function)).check()
    assert (info.input_shape, info.num_classes, info.train_samples, info.test_samples) == ((3, 8, 6), 4, 20, 5)
    scaled = PIXELS.astype(np.float64) / 255
    assert info.mean == pytest.approx(scaled.mean((0, 2, 3))) and info.std == pytest.approx(scaled.std((0, 2, 3)))


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
@pytest.mark.parametrize("function", ["bytes_dataset", "pil_dataset"])
def test_a_dataset_gives_the_batches_of_its_arrays(function: str, augment: str) -> None:
    for one, two in zip(training("arrays", augment=augment), training(function, augment=augment), strict=True):
        assert_same(one, two)
    one, two = (list(BatchSource(config(each), 1).test_batches()) for each in ("arrays", function))
    assert [len(batch.labels) for batch in one] == [4, 1]
    assert one and all(torch.equal(first.images, second.images) for first, second in zip(one, two, strict=True))


def test_floating_point_images_reach_the_network_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.linspace(-3, 5, 20 * 12, dtype=torch.float64).view(20, 1, 3, 4)
    monkeypatch.setattr(f"{HERE}.arrays", lambda: ((images, LABELS), (images[:5], LABELS[:5])))
    (batch,) = BatchSource(config("arrays", batch_size=5), 0).test_batches()
    assert torch.equal(batch.images, images[:5].float())
    cropped = training("arrays", count=1, batch_size=20, augment="crop_flip")[0].images
    assert cropped.dtype == torch.float32 and cropped.shape == (20, 1, 3, 4)


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_random_changes_of_a_dataset_depend_on_seed_epoch_and_sample_alone(augment: str) -> None:
    before = torch.get_rng_state()
    walked, again = (training("random_dataset", augment=augment) for _ in range(2))
    for one, two in zip(walked, again, strict=True):
        assert_same(one, two)
    seen = torch.cat([batch.images for batch in [*walked, *training("random_dataset", seed=2, augment=augment)]])
    assert len({image.numpy().tobytes() for image in seen}) == len(seen) == 80
    source = BatchSource(config("random_dataset"), 1)
    assert_same(next(source.test_batches()), next(source.test_batches()))
    assert torch.equal(torch.get_rng_state(), before)


def test_loader_processes_give_the_bits_of_none() -> None:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "greedypipe.workers.data.prefetch"])
    alone, ahead = training("random_dataset"), training("random_dataset", loader_workers=2)
    for one, two in zip(alone, ahead, strict=True):
        assert_same(one, two)
    assert set(multiprocessing.active_children()) == before


def test_a_dataset_with_targets_is_not_read_for_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    item = lambda index: (asked.append(index), bytes_item(index))[1]  # noqa: E731
    monkeypatch.setattr(f"{HERE}.arrays", lambda: (Listed(item, targets=list(LABELS)), arrays_of()[1]))
    monkeypatch.setattr("greedypipe.workers.data.own_samples.SPOT_CHECKS", 2)
    assert len(open_data(config("arrays")).load()[0]) == 20
    assert set(asked) == {0, 10}


def arrays_of() -> tuple[Any, Any]:
    return (PIXELS, LABELS), (PIXELS[:5], LABELS[:5])


def holed(index: int) -> tuple[Tensor, int]:
    return torch.full((3, 8, 6), float("nan") if index == 19 else 1.0), int(LABELS[index])


def uneven(index: int) -> tuple[Tensor, int]:
    return torch.from_numpy(PIXELS[index][:, : 8 - (index == 10)]), int(LABELS[index])


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return itertools.count()


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no pair": (lambda: 5, "returned int, allowed: (train, test)"),
    "arrays without a held-out part": (
        lambda: (PIXELS, LABELS),
        "train: got ndarray, allowed: (images, labels) or a Dataset",
    ),
    "no length": (
        lambda: (Endless(), Endless()),
        "train: got Endless, allowed: (images, labels) or a Dataset with a length",
    ),
    "no channels": (lambda: ((PIXELS[:, 0], LABELS), 0), "train: got uint8 [20, 8, 6], allowed: images [N, C, H, W]"),
    "whole numbers": (lambda: ((PIXELS.astype(int), LABELS), 0), "got images int64 [20, 3, 8, 6], allowed: uint8 or float"),
    "texts": (lambda: ((np.array([["a"]]), LABELS), 0), "train: got an array of <U1, allowed: numbers"),
    "fewer labels": (lambda: ((PIXELS, LABELS[1:]), 0), "train: got 20 images and 19 labels, allowed: equally many"),
    "one-hot labels": (lambda: ((PIXELS, np.eye(20)), 0), "train: got labels float64 [20, 20], allowed: integers [N]"),
    "one class": (lambda: ((PIXELS, LABELS * 0), arrays_of()[1]), "train: got only the label 0, allowed: two classes"),
    "labels from 1": (
        lambda: ((PIXELS, LABELS + 1), arrays_of()[1]),
        "train: got 4 different labels from 1 to 4, allowed: 0 to 3",
    ),
    "labels with a gap": (
        lambda: ((PIXELS, LABELS * 2), arrays_of()[1]),
        "got 4 different labels from 0 to 6, allowed: 0 to 3",
    ),
    "unknown test class": (
        lambda: ((PIXELS, LABELS), (PIXELS, LABELS + 1)),
        "test: got labels 1 to 4, allowed: 0 to 3, as in train",
    ),
    "infinite pixels": (lambda: ((PIXELS / 0.0, LABELS), 0), "train: got images with infinite or undefined pixels"),
    "another shape": (
        lambda: ((PIXELS, LABELS), (PIXELS[:, :, 1:], LABELS)),
        "test: got images uint8 [3, 7, 6], allowed: uint8 [3, 8, 6], as in train",
    ),
    "another type": (
        lambda: ((PIXELS, LABELS), (PIXELS / 255, LABELS)),
        "test: got images float32 [3, 8, 6], allowed: uint8 [3",
    ),
    "a constant channel": (
        lambda: ((PIXELS // 255 * 0 + 7, LABELS), arrays_of()[1]),
        "got a channel whose pixels are all 7",
    ),
    "an empty dataset": (lambda: (Listed(bytes_item, 0), 0), "train: got an empty Dataset, allowed: 1 sample or more"),
    "items without label": (lambda: pairs(lambda i: bytes_item(i)[0]), "train[0]: got Tensor, allowed: (image, label)"),
    "an item of four dimensions": (
        lambda: (TensorDataset(torch.zeros(5, 1, 1, 4, 4), torch.arange(5)), 0),
        "train[0]: got float32 [1, 1, 4, 4], allowed: an image [C, H, W]",
    ),
    "labels that are no numbers": (
        lambda: pairs(lambda i: (bytes_item(i)[0], "cat")),
        "train[0]: got label 'cat', allowed: an int",
    ),
    "targets of another length": (
        lambda: (Listed(bytes_item, targets=[0, 1]), 0),
        "train.targets: got 2 labels, allowed: 20",
    ),
    "other targets": (
        lambda: (Listed(bytes_item, targets=LABELS[::-1].copy()), 0),
        "train[0]: got label 0, allowed: 3, as in",
    ),
    "an uneven image": (
        lambda: pairs(uneven),
        "train[10]: got an image uint8 [3, 7, 6], allowed: uint8 [3, 8, 6] as the first",
    ),
    "an undefined pixel": (lambda: pairs(holed), "train[19]: got images with infinite or undefined pixels"),
    "another chance": (
        lambda: pairs(lambda i: (torch.from_numpy(GENERATOR.random((1, 4, 4))), i % 4)),
        "train: got other pixels when the same sample was read again",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_line(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, expected = BAD[case]
    monkeypatch.setattr(f"{HERE}.arrays", function)
    with np.errstate(all="ignore"), pytest.raises(ValueError) as refusal:
        open_data(config("arrays")).check()
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"data.name={HERE}:arrays: ")


def test_a_dataset_that_cannot_be_sent_to_loader_processes_is_refused() -> None:
    assert open_data(config("unpicklable")).check().train_samples == 20
    with pytest.raises(ValueError, match=r"loader processes cannot be sent the Dataset .*use data\.loader_workers=0"):
        open_data(config("unpicklable", loader_workers=1)).check()


def test_an_uneven_image_is_refused_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greedypipe.workers.data.own_samples.SPOT_CHECKS", 1)
    monkeypatch.setattr(f"{HERE}.arrays", lambda: pairs(uneven))
    with pytest.raises(ValueError, match=r"train\[10\]: got an image uint8 \[3, 7, 6\]"):
        list(itertools.islice(BatchSource(config("arrays", augment="none"), 0).training_batches(), 5))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)


@pytest.mark.usefixtures("example")
def test_the_example_is_checked_planned_and_read() -> None:
    run = load_config(str(EXAMPLE / "config.yaml"), [])
    plan = make_plan(run, 2)
    assert (plan.data.input_shape, plan.data.num_classes) == ((1, 12, 12), 3)
    batch = BatchSource(run.data, seed=0, info=plan.data).training_batch(0)
    assert batch.images.shape == (50, 1, 12, 12) and abs(batch.images.mean().item()) < 0.1
    assert set(batch.labels.tolist()) == {0, 1, 2}


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("data.options={sice: 3}", "unknown option of own_data:stripes; did you mean size?"),
        ("data.name=own_data:strips", "module 'own_data' has no 'strips'; did you mean 'stripes'?"),
        ("data.name=own_dta:stripes", "no module 'own_dta' on the import path"),
        ("data.batch_size=2001", "data.batch_size=2001 exceeds the training set; allowed: 2 to 2000"),
        ("data.image_size=3", "data.image_size: unknown key"),
    ],
)
def test_a_wrong_setting_of_the_example_is_refused_before_anything_starts(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_plan(load_config(str(EXAMPLE / "config.yaml"), [override]), 2)
    assert complaint in str(refusal.value) and "\n" not in str(refusal.value)
