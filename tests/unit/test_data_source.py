"""The batch source: every batch a pure function of the seed and its number."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greedypipe.workers.data.augment import normalise
from greedypipe.workers.data.sets.image_folder import ImageFolderConfig
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.synthetic import Synthetic, SyntheticConfig
from greedypipe.workers.data.source import BatchSource, LoadedBatch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def synthetic(**keys: object) -> SyntheticConfig:
    settings = {"shape": [1, 8, 8], "classes": 4, "samples": 23, "batch_size": 5, "augment": "crop_flip"}
    return SyntheticConfig(**(settings | keys))


def write_folder(root: Path) -> str:
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (12, 10 + number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return str(root)


def streamed(root: str, **keys: object) -> ImageFolderConfig:
    settings = {"image_size": 8, "batch_size": 3, "augment": "crop_flip", "memory_limit_mb": 0}
    return ImageFolderConfig(root=root, **(settings | keys))


def assert_same(left: LoadedBatch, right: LoadedBatch) -> None:
    assert left.batch_id == right.batch_id
    assert torch.equal(left.images, right.images) and torch.equal(left.labels, right.labels)


def fingerprints(batches: list[LoadedBatch]) -> list[bytes]:
    return sorted(image.numpy().tobytes() for batch in batches for image in batch.images)


def test_a_batch_depends_on_nothing_but_seed_and_number() -> None:
    walked, jumped = BatchSource(synthetic(), seed=1), BatchSource(synthetic(), seed=1)
    in_order = list(itertools.islice(walked.training_batches(), 12))
    for batch_id in reversed(range(12)):
        assert_same(jumped.training_batch(batch_id), in_order[batch_id])


def test_training_goes_on_from_any_batch() -> None:
    source = BatchSource(synthetic(), seed=1)
    resumed = itertools.islice(source.training_batches(first=7), 4)
    for batch_id, batch in enumerate(resumed, start=7):
        assert_same(batch, source.training_batch(batch_id))


@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip"])
def test_another_seed_gives_other_batches(augment: str) -> None:
    one, two = (BatchSource(synthetic(augment=augment), seed=seed) for seed in (1, 2))
    assert not torch.equal(one.training_batch(0).images, two.training_batch(0).images)


def test_another_epoch_gives_other_batches() -> None:
    source = BatchSource(synthetic(), seed=1)
    assert not torch.equal(source.training_batch(0).images, source.training_batch(5).images)


def test_every_training_sample_comes_once_per_epoch() -> None:
    source = BatchSource(synthetic(augment="none"), seed=1)
    stored, _ = Synthetic(synthetic()).load()
    expected = fingerprints([LoadedBatch(0, normalise(stored.images, [0.5], [0.25]), stored.labels)])
    assert source.steps_per_epoch == 5
    for epoch in range(2):
        batches = [source.training_batch(5 * epoch + step) for step in range(5)]
        assert fingerprints(batches) == expected
        assert [len(batch.labels) for batch in batches] == [5, 5, 5, 5, 3]


def test_labels_stay_with_their_images() -> None:
    source = BatchSource(synthetic(augment="none"), seed=1)
    stored, _ = Synthetic(synthetic()).load()
    label_of = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(normalise(stored.images, [0.5], [0.25]), stored.labels, strict=True)
    }
    for batch in itertools.islice(source.training_batches(), 5):
        assert [label_of[image.numpy().tobytes()] for image in batch.images] == batch.labels.tolist()


def test_batches_are_float32_images_and_int64_labels() -> None:
    batch = BatchSource(synthetic(), seed=1).training_batch(3)
    assert batch.batch_id == 3
    assert batch.images.dtype == torch.float32 and batch.images.shape == (5, 1, 8, 8)
    assert batch.images.is_contiguous() and batch.labels.dtype == torch.int64


def test_held_out_batches_come_in_order_unchanged_and_with_the_uneven_last_one() -> None:
    config = synthetic(samples=40, batch_size=3)
    source = BatchSource(config, seed=1)
    _, held_out = Synthetic(config).load()
    batches = list(source.test_batches())
    evaluated = list(source.evaluation_batches())
    assert all(torch.equal(one.images, other.images) for one, other in zip(evaluated, batches, strict=True))
    assert [batch.batch_id for batch in batches] == [0, 1, 2] and source.num_evaluation_batches == 3
    assert [len(batch.labels) for batch in batches] == [3, 3, 2]
    images = torch.cat([batch.images for batch in batches])
    assert torch.equal(images, normalise(held_out.images, [0.5], [0.25]))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), held_out.labels)


def test_held_out_batches_do_not_depend_on_the_seed() -> None:
    one, two = (list(BatchSource(synthetic(), seed=seed).test_batches()) for seed in (1, 2))
    assert len(one) == 1
    assert_same(one[0], two[0])


def test_the_default_generator_is_left_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    before = torch.get_rng_state()
    for config in (synthetic(), streamed(write_folder(tmp_path))):
        BatchSource(config, seed=1).training_batch(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_fewer_samples_than_described_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = Synthetic(synthetic(samples=22)).load()
    monkeypatch.setattr(Synthetic, "load", lambda self: fewer)
    with pytest.raises(ValueError, match=r"holds 22 training and 4 held-out samples, expected 23 and 4"):
        BatchSource(synthetic(), seed=1)


def test_crops_and_flips_differ_between_seeds_epochs_and_batches() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(5, 1, 1, 1)
    store = InMemoryImages(ramp, torch.zeros(5, dtype=torch.int64))
    drawn = [
        store.training_reader("crop_flip", seed).read(torch.arange(5), epoch, batch_id)[0]
        for seed, epoch, batch_id in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))
    ]
    assert len({images.numpy().tobytes() for images in drawn}) == 4


def test_random_resized_crops_depend_on_seed_epoch_and_sample_alone(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    root = write_folder(tmp_path)
    whole = BatchSource(streamed(root, batch_size=8), seed=1).training_batch(0)
    halves = BatchSource(streamed(root, batch_size=4), seed=1)
    assert_same(LoadedBatch(1, whole.images[4:], whole.labels[4:]), halves.training_batch(1))
    other_seed = BatchSource(streamed(root, batch_size=8), seed=2).training_batch(0)
    other_epoch = BatchSource(streamed(root, batch_size=8), seed=1).training_batch(1)
    assert fingerprints([whole]) != fingerprints([other_seed])
    assert fingerprints([whole]) != fingerprints([other_epoch])


def test_a_streamed_folder_without_augmentation_gives_the_bits_of_one_in_memory(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    on_disk = BatchSource(streamed(root, augment="none"), seed=1)
    in_memory = BatchSource(streamed(root, augment="none", memory_limit_mb=1), seed=1)
    for batch_id in range(4):
        assert_same(on_disk.training_batch(batch_id), in_memory.training_batch(batch_id))
    for one, two in zip(on_disk.test_batches(), in_memory.test_batches(), strict=True):
        assert_same(one, two)


def test_closing_twice_is_allowed_where_there_is_nothing_to_close() -> None:
    with BatchSource(synthetic(), seed=1) as source:
        source.close()
    assert_same(source.training_batch(0), BatchSource(synthetic(), seed=1).training_batch(0))


@pytest.mark.parametrize("seed", [0, 1])
def test_samples_that_are_kept_back_are_trained_on_in_no_epoch_and_are_those_of_every_seed(seed: int) -> None:
    whole = BatchSource(synthetic(augment="none"), seed)
    source = BatchSource(synthetic(augment="none", calibration_samples=6), seed)
    kept_back = fingerprints(list(source.calibration_batches()))
    epochs = [
        fingerprints(list(itertools.islice(source.training_batches(epoch * source.steps_per_epoch), source.steps_per_epoch)))
        for epoch in range(2)
    ]
    everything = fingerprints(list(itertools.islice(whole.training_batches(), whole.steps_per_epoch)))
    assert len(kept_back) == 6 and epochs[0] == epochs[1]
    assert sorted([*kept_back, *epochs[0]]) == everything
    assert kept_back == fingerprints(list(BatchSource(synthetic(calibration_samples=6), seed + 1).calibration_batches()))
    assert list(whole.calibration_batches()) == []


@pytest.mark.parametrize(("validation", "samples"), [(0.25, 6), (5, 5), (0.01, 1)])
def test_a_run_is_evaluated_on_its_validation_part_which_is_trained_on_in_no_epoch(validation: float, samples: int) -> None:
    whole = BatchSource(synthetic(augment="none"), 0)
    config = synthetic(augment="none", calibration_samples=4, validation=validation)
    info, source = Synthetic(config).describe(), BatchSource(config, 1)
    assert (info.validation_samples, info.evaluated_samples, info.train_samples) == (samples, samples, 19 - samples)
    parts = [
        itertools.islice(source.training_batches(), source.steps_per_epoch),
        source.calibration_batches(),
        source.evaluation_batches(),
    ]
    counted = [fingerprints(list(part)) for part in parts]
    assert [len(part) for part in counted] == [19 - samples, 4, samples]
    everything = fingerprints(list(itertools.islice(whole.training_batches(), whole.steps_per_epoch)))
    assert sorted(itertools.chain(*counted)) == everything
    assert_same(next(source.test_batches()), next(whole.test_batches()))


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.calibration_samples and data\.validation: got 23, allowed: below 23"):
        Synthetic(synthetic(calibration_samples=3, validation=20)).describe()
