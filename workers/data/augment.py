"""Image arithmetic of a batch, without a loop over its samples."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from greedypipe.workers.data.info import DataInfo

Prepare = Callable[[Tensor], Tensor]
"""Makes of the samples of a batch, as they are stored and augmented, what a loader gives: [rows, *shape]. Picklable; may
write into what it is given."""
PADDING_DIVISOR = 8
LEAST_AREA = 0.75
"""The smallest part of an image that a resized crop shows, as a share of its area."""


def padding(height: int) -> int:
    """Pixels of black border that a random crop may show: height // 8, so 32 -> 4, 28 -> 3, 8 -> 1.

    The usual 4 at 32x32, in proportion at other sizes: 4 of 8 pixels would destroy the image.
    """
    return height // PADDING_DIVISOR


def augment(images: Tensor, generator: torch.Generator, crop: bool, flip: bool) -> Tensor:
    """Crops and mirrors every image of a batch at random.

    Args:
        images: uint8 or float32 [N, C, H, W] on CPU. Not modified.
        generator: Draws N row and N column offsets when `crop`, then N coins when `flip`.
        crop: Pads with zeros by `padding(H)` on all four sides and cuts out H x W at a random place.
        flip: Mirrors left and right with probability 1/2.

    Returns:
        [N, C, H, W] of the same type, contiguous; `images` itself when nothing was asked for.
    """
    if crop:
        images = _random_crop(images, generator)
    if flip:
        images = _random_flip(images, generator)
    return images


def _random_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    border = padding(height)
    top, left = torch.randint(0, 2 * border + 1, (2, count), generator=generator).numpy()
    padded = np.zeros((count, channels, height + 2 * border, width + 2 * border), images.numpy().dtype)
    padded[:, :, border : border + height, border : border + width] = images.numpy()
    # numpy copies whole windows, here and in the flip; torch looks up each pixel and is four times slower.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return torch.from_numpy(windows[np.arange(count), :, top, left])


def _random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.randint(0, 2, (len(images),), generator=generator).bool().numpy()
    flipped = images.numpy().copy()
    flipped[mirrored] = flipped[mirrored, :, :, ::-1]
    return torch.from_numpy(flipped)


def resized_crop(image: Tensor, draws: Sequence[float]) -> Tensor:
    """Cuts out a part of an image, of its own proportions, and enlarges it to the image's size (bilinear, no antialiasing).

    Args:
        image: uint8 or float32 [C, H, W].
        draws: Three numbers in [0, 1): for the part's area, from LEAST_AREA to 1 of the image's, and for its place.

    Returns:
        [C, H, W] of the same type, contiguous; bytes are rounded.
    """
    area, down, right = draws
    scale = (LEAST_AREA + (1 - LEAST_AREA) * area) ** 0.5
    size = image.shape[1:]
    height, width = (max(1, round(side * scale)) for side in size)
    top, left = int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1))
    part = image[None, :, top : top + height, left : left + width]
    enlarged = interpolate(part.float(), size, mode="bilinear", align_corners=False)[0]
    return enlarged if image.is_floating_point() else enlarged.round_().to(image.dtype)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float], full_scale: float = 255.0) -> Tensor:
    """Maps samples to float32 (images / full_scale - mean) / std, with one mean and one std per channel, the first dimension
    behind N; or with one of each for all.

    May write into float32 `images`. Of uint8 it makes the same bits as torchvision's ToTensor followed by Normalize.
    """
    per_channel = (-1, *[1] * (images.dim() - 2))
    means, stds = (torch.tensor(values, dtype=torch.float32).view(per_channel) for values in (mean, std))
    return images.to(torch.float32).div_(full_scale).sub_(means).div_(stds)


def normalising(info: DataInfo) -> Prepare:
    """What normalises the samples of a set, on the CPU."""
    return partial(normalise, mean=info.mean, std=info.std, full_scale=info.full_scale)


def as_stored(images: Tensor) -> Tensor:
    """No-op, where samples are normalised later."""
    return images
