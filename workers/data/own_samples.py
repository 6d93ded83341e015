"""One part of a user's own data set, brought to the form in which it is read: from arrays, or from a torch Dataset."""

import operator
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from greedypipe.pipeline.own_code import blaming, top_package
from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.workers.data.config import Augment
from greedypipe.workers.data.image_files import as_grey_or_rgb, channels_first
from greedypipe.workers.data.readers import augmented
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import ImageStore, Reader

SPOT_CHECKS: Final = 8
"""Samples that are read twice: one alone could be mirrored, by a coin, both times."""


def store_of(part: Any, name: str) -> "Part":
    """Brings what a user's object returned to the form of a store.

    Args:
        part: A pair of arrays or tensors, or a map-style Dataset.
        name: The part's, for errors, e.g. "data.name=mylab.sets:bars: train".

    Raises:
        ValueError: One line: it is neither, or does not fit.
    """
    if isinstance(part, tuple) and len(part) == 2:
        return in_memory(_images(part[0], name, num_dims=4), part[1], name)
    if not isinstance(part, np.ndarray | Tensor) and hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        return DatasetImages(part, name)
    raise ValueError(f"{name}: got {type(part).__name__}, allowed: (images, labels) or a Dataset with a length")


def in_memory(samples: Tensor, labels: Any, name: str) -> InMemoryImages:
    """Samples as `samples_of` returns them, with their labels, as a store.

    Raises:
        ValueError: One line: the labels are not integers [N], or there are fewer or more of them than samples.
    """
    classes = _labels(labels, name)
    if len(samples) != len(classes) or len(samples) == 0:
        raise ValueError(f"{name}: got {len(samples)} images and {len(classes)} labels, allowed: equally many, 1 or more")
    return InMemoryImages(samples.contiguous(), classes)


class DatasetImages(ImageStore):
    """A map-style Dataset, read sample by sample.

    Raises:
        ValueError: One line: it is empty, an item is not an image and its class, or is another one when it is read again.
    """

    is_in_memory = False

    def __init__(self, dataset: Any, name: str) -> None:
        if len(dataset) == 0:
            raise ValueError(f"{name}: got an empty Dataset, allowed: 1 sample or more")
        self._dataset = dataset
        self._name = name
        # What the user's code draws while it is looked at must not move the default generator.
        with torch.random.fork_rng(devices=[]):
            first, _ = self._item(0)
            targets = getattr(dataset, "targets", None)
            if targets is None:
                targets = [self._item(index)[1] for index in range(len(dataset))]
        self._shape, self._dtype = first.shape, first.dtype
        self.classes = tuple(map(str, getattr(dataset, "classes", ())))
        self.labels = _labels(targets, f"{name}.targets")
        if len(self.labels) != len(dataset):
            raise ValueError(f"{name}.targets: got {len(self.labels)} labels, allowed: {len(dataset)}, one per sample")
        self._spot_check()

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageStore.gather`; where the Dataset draws at random, the same for every reading."""
        return self.read(indices, "as stored")

    def training_reader(self, augment: Augment, seed: int) -> Reader:
        """As the Dataset gives it, or changed further; see `ImageStore.training_reader`."""
        return augmented(SampleReader(self, seed), augment, seed)

    def read(self, indices: Tensor, *randomness: int | str) -> tuple[Tensor, Tensor]:
        """Reads samples; what the Dataset draws is a function of `randomness` and the sample.

        Raises:
            ValueError: A sample has another shape, type or class than the first one and `targets` announce.
        """
        images = torch.empty((len(indices), *self._shape), dtype=self._dtype)
        # The default generator is borrowed, and given back as it was.
        with torch.random.fork_rng(devices=[]):
            for row, index in enumerate(indices.tolist()):
                seed_global_generator(torch.device("cpu"), derive_seed(*randomness, index))
                images[row] = self._checked_item(index)
        return images, self.labels.index_select(0, indices)

    def _spot_check(self) -> None:
        indices = evenly_spaced(len(self), SPOT_CHECKS)
        if not torch.equal(self.gather(indices)[0], self.gather(indices)[0]):
            raise ValueError(
                f"{self._name}: got other pixels when the same sample was read again; allowed: random changes that draw "
                "from torch's default generator"
            )

    def _checked_item(self, index: int) -> Tensor:
        image, label = self._item(index)
        if (image.shape, image.dtype) != (self._shape, self._dtype):
            raise ValueError(
                f"{self._name}[{index}]: got an image {form(image)}, allowed: {_words(self._dtype)} {list(self._shape)} "
                "as the first one"
            )
        if label != self.labels[index]:
            raise ValueError(f"{self._name}[{index}]: got label {label}, allowed: {self.labels[index]}, as in `targets`")
        return image

    def _item(self, index: int) -> tuple[Tensor, int]:
        name = f"{self._name}[{index}]"
        with blaming(name, top_package(type(self._dataset).__module__)):
            item = self._dataset[index]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise ValueError(f"{name}: got {type(item).__name__}, allowed: (image, label)")
        image, label = item
        if isinstance(image, Image.Image):
            image = channels_first(_plain(image, name))
        try:
            return _images(image, name, num_dims=3), operator.index(label)
        except TypeError:
            raise ValueError(f"{name}: got label {label!r}, allowed: an integer") from None


Part = InMemoryImages | DatasetImages
"""Both have all their `labels`, int64 [N]."""


class SampleReader:
    """Reads a Dataset for training: what it draws at random differs from epoch to epoch."""

    def __init__(self, store: DatasetImages, seed: int) -> None:
        self._store = store
        self._seed = seed

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; randomness is a function of (seed, epoch, sample)."""
        return self._store.read(indices, self._seed, "sample", epoch)


def evenly_spaced(num_samples: int, most: int) -> Tensor:
    """At most so many sample numbers, int64, ascending."""
    count = min(num_samples, most)
    return torch.arange(count) * num_samples // count


def _plain(image: Image.Image, name: str) -> Image.Image:
    try:
        return as_grey_or_rgb(image)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def samples_of(value: Any, name: str) -> Tensor:
    """Images [N, C, H, W], signals [N, C, T] or vectors [N, F], uint8 or float32 on CPU.

    Raises:
        ValueError: One line: they have another shape or type, or are not finite.
    """
    samples = _tensor(value, name)
    if samples.dim() not in (2, 3, 4) or 0 in samples.shape[1:]:
        allowed = "images [N, C, H, W], signals [N, C, T] or vectors [N, F]"
        raise ValueError(f"{name}: got {form(samples)}, allowed: {allowed}")
    return _numbers(samples, name)


def _images(value: Any, name: str, num_dims: int) -> Tensor:
    """One or several images, uint8 or float32 on CPU."""
    images = _tensor(value, name)
    if images.dim() != num_dims or 0 in images.shape[1 - num_dims :]:
        allowed = "images [N, C, H, W]" if num_dims == 4 else "an image [C, H, W]"
        raise ValueError(f"{name}: got {form(images)}, allowed: {allowed}")
    return _numbers(images, name)


def _numbers(images: Tensor, name: str) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"{name}: got images {form(images)}, allowed: uint8 or floating-point")
    images = images.to(torch.float32)
    if not images.isfinite().all():
        raise ValueError(f"{name}: got images with infinite or undefined pixels, allowed: finite ones")
    return images


def _labels(value: Any, name: str) -> Tensor:
    """Classes, int64 [N] on CPU."""
    labels = _tensor(value, name)
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name}: got labels {form(labels)}, allowed: integers [N]")
    return labels.to(torch.int64)


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    array = np.asarray(value)
    try:
        # Copies what torch could not share: negative strides, read-only memory, foreign byte order.
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except TypeError:
        raise ValueError(f"{name}: got an array of {array.dtype}, allowed: numbers") from None


def form(tensor: Tensor) -> str:
    """Type and shape, for errors: float32 [3, 32, 32]."""
    return f"{_words(tensor.dtype)} {list(tensor.shape)}"


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
