"""Image arithmetic of a batch."""

import pytest
import torch
from torch import Tensor

from greedypipe.workers.data.augment import augment, normalise, padding


def random_images(count: int = 6, channels: int = 3, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crop_one(image: Tensor, top: int, left: int) -> Tensor:
    """Shifts one image pixel by pixel; what comes from outside is black."""
    border = padding(image.shape[1])
    moved = torch.zeros_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            source_row, source_column = row + top - border, column + left - border
            if 0 <= source_row < image.shape[1] and 0 <= source_column < image.shape[2]:
                moved[:, row, column] = image[:, source_row, source_column]
    return moved


@pytest.mark.parametrize(("height", "pixels"), [(32, 4), (28, 3), (8, 1), (224, 28), (4, 0)])
def test_padding_is_an_eighth_of_the_height(height: int, pixels: int) -> None:
    assert padding(height) == pixels


@pytest.mark.parametrize("shape", [(6, 3, 16, 16), (5, 1, 8, 12)])
def test_crop_equals_a_loop_over_samples_and_pixels(shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(1))
    tops, lefts = torch.randint(0, 2 * padding(shape[2]) + 1, (2, shape[0]), generator=seeded()).tolist()
    expected = [crop_one(*each) for each in zip(images, tops, lefts, strict=True)]
    assert torch.equal(augment(images, seeded(), crop=True, flip=False), torch.stack(expected))


def test_flip_equals_a_loop_over_samples() -> None:
    images = random_images()
    coins = torch.randint(0, 2, (len(images),), generator=seeded()).tolist()
    assert 0 < sum(coins) < len(coins)
    expected = [image.flip(2) if coin else image for image, coin in zip(images, coins, strict=True)]
    assert torch.equal(augment(images, seeded(), crop=False, flip=True), torch.stack(expected))


def test_crop_and_flip_are_drawn_one_after_the_other() -> None:
    images, generator, both = random_images(), seeded(), seeded()
    in_turn = augment(augment(images, generator, crop=True, flip=False), generator, crop=False, flip=True)
    assert torch.equal(augment(images, both, crop=True, flip=True), in_turn)


@pytest.mark.parametrize(("crop", "flip"), [(True, False), (False, True), (True, True)])
def test_augmenting_leaves_its_input_unchanged_and_returns_a_contiguous_copy(crop: bool, flip: bool) -> None:
    images = random_images()
    before = images.clone()
    changed = augment(images, seeded(), crop, flip)
    assert torch.equal(images, before)
    assert changed.dtype == torch.uint8 and changed.is_contiguous() and not torch.equal(changed, before)


def test_nothing_asked_for_changes_nothing() -> None:
    images = random_images()
    assert augment(images, seeded(), crop=False, flip=False) is images


def test_normalise_scales_each_channel_by_its_own_mean_and_std() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    normalised = normalise(images, mean=(0.5, 0.25), std=(0.25, 0.125))
    assert normalised.dtype == torch.float32
    assert normalised.flatten().tolist() == [-2.0, 6.0]


def test_normalise_gives_every_grey_level_the_bits_of_the_formula() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = (levels.float() / 255 - torch.tensor(0.1307)) / torch.tensor(0.3081)
    assert torch.equal(normalise(levels, (0.1307,), (0.3081,)), expected)
