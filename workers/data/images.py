"""Loading: from a data set's name to its training part and its held-out part."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.archives import LabelledArrays, load_archive
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.image_folder import FolderImages, fits_in_memory, list_splits, sample_shape

NUM_DIGITS = 1797
NUM_HELD_OUT_DIGITS = NUM_DIGITS // 5
_SYNTHETIC_LEVELS = 128


class ImageStore(Protocol):
    """One part of a data set, from which any samples can be read in any order."""

    def __len__(self) -> int: ...

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Reads samples by number (int64 [rows]): uint8 [rows, C, H, W] and int64 [rows], the caller's."""
        ...


class InMemoryImages:
    """Decoded images: `images` uint8 [N, C, H, W] contiguous, `labels` int64 [N], both on CPU."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        assert images.dtype == torch.uint8 and images.dim() == 4 and images.is_contiguous(), images.shape
        assert labels.dtype == torch.int64 and labels.shape == images.shape[:1], labels.shape
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Copies samples by number (int64 [rows]): uint8 [rows, C, H, W] and int64 [rows]."""
        # index_select copies whole images; images[indices] looks up each pixel and is thirty times slower.
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)


def load(config: DataConfig) -> tuple[ImageStore, ImageStore]:
    """Loads the training part and the held-out part; blocks for the reading, decoding and downloading.

    Everything becomes `InMemoryImages`, except an image folder above `memory_limit_mb`: `FolderImages`.

    Raises:
        ValueError: The files are missing (and may not be downloaded) or damaged.
        ConnectionError: The download failed.
    """
    match config.name:
        case "digits":
            return _load_digits()
        case "synthetic":
            return _make_synthetic(config)
        case "image_folder":
            return _load_folder(config)
        case _:
            train, test = load_archive(config)
            return _in_memory(train), _in_memory(test)


def _in_memory(arrays: LabelledArrays) -> InMemoryImages:
    images, labels = arrays
    return InMemoryImages(torch.from_numpy(np.array(images, order="C")), torch.from_numpy(labels))


def _load_digits() -> tuple[InMemoryImages, InMemoryImages]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError("data.name=digits needs scikit-learn: `pip install scikit-learn`") from error
    digits = load_digits()
    images = torch.from_numpy((digits.images * 15).astype(np.uint8)[:, None])
    labels = torch.from_numpy(digits.target.astype(np.int64))
    assert len(images) == NUM_DIGITS
    # The held-out part must not depend on the seed of the run: accuracies of two runs are to be comparable.
    generator = torch.Generator().manual_seed(derive_seed("digits", "held-out"))
    order = torch.randperm(NUM_DIGITS, generator=generator)
    test, train = order[:NUM_HELD_OUT_DIGITS], order[NUM_HELD_OUT_DIGITS:]
    return InMemoryImages(images[train], labels[train]), InMemoryImages(images[test], labels[test])


def _make_synthetic(config: DataConfig) -> tuple[InMemoryImages, InMemoryImages]:
    """Smooth random pattern of the class plus white noise, each of them uniform over half the grey levels."""
    generator = torch.Generator().manual_seed(derive_seed("synthetic"))
    channels, height, width = config.shape
    coarse = torch.rand(config.classes, channels, 4, 4, generator=generator)
    # Smooth, so that a crop moved by a few pixels still shows the same class.
    patterns = interpolate(coarse, (height, width), mode="bilinear").mul_(_SYNTHETIC_LEVELS - 1)
    total = config.samples + config.samples // 5
    labels = torch.arange(total) % config.classes
    shape = (total, channels, height, width)
    noise = torch.randint(0, _SYNTHETIC_LEVELS, shape, dtype=torch.uint8, generator=generator)
    images = noise.add_(patterns.to(torch.uint8).index_select(0, labels))
    train, test = slice(0, config.samples), slice(config.samples, total)
    return InMemoryImages(images[train], labels[train]), InMemoryImages(images[test], labels[test])


def _load_folder(config: DataConfig) -> tuple[ImageStore, ImageStore]:
    _, train_split, test_split = list_splits(config.root)
    shape = sample_shape(train_split, config.image_size)
    train, test = FolderImages(train_split, shape), FolderImages(test_split, shape)
    if not fits_in_memory(len(train) + len(test), shape, config.memory_limit_mb):
        return train, test
    return _decode_all(train), _decode_all(test)


def _decode_all(part: FolderImages) -> InMemoryImages:
    # One thread: opening small images holds the interpreter lock, two threads take twice as long.
    return InMemoryImages(*part.gather(torch.arange(len(part))))
