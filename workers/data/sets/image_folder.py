"""A user's folder of images: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/)."""

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.workers.data.config import Augment, DataConfig
from greedypipe.workers.data.folder_listing import FolderSplit, list_splits, sample_shape
from greedypipe.workers.data.pil_images import channels_first, fit
from greedypipe.workers.data.readers import UnchangedReader
from greedypipe.workers.data.sets.archives import CIFAR10_MEAN, CIFAR10_STD
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataInfo, DataSet, ImageStore, Reader, require_torchvision
from greedypipe.workers.user_path import UserPath


class ImageFolderConfig(DataConfig, frozen=True):
    """Your own folder of images: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/)."""

    name: Literal["image_folder"] = "image_folder"
    root: UserPath = Field("data", min_length=1, description="folder that holds train/ and test/ (or val/)")
    image_size: int = Field(0, ge=0, description="height and width in pixels; 0: those of the first training image")
    memory_limit_mb: int = Field(4096, ge=0, description="decode once into memory up to this size (MiB), above it per batch")


class ImageFolder(DataSet):
    """A folder, listed once; its images are decoded by `load` or, above `memory_limit_mb`, when they are read."""

    Config = ImageFolderConfig

    def __init__(self, config: ImageFolderConfig) -> None:
        super().__init__(config)
        self._root = config.root
        self._image_size = config.image_size
        self._memory_limit_mb = config.memory_limit_mb
        self._augments = config.augment != "none"

    def check_presence(self) -> None:
        """See `DataSet.check_presence`."""
        if self._augments and not self._fits_in_memory():
            require_torchvision("torchvision.transforms.v2")

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`; reads the header of the first image."""
        classes, train, test = self._listing
        mean, std = _normalisation(self._shape)
        return DataInfo(self._shape, len(classes), len(train), len(test), mean, std)

    def load(self) -> tuple[ImageStore, ImageStore]:
        """See `DataSet.load`."""
        _, train_split, test_split = self._listing
        train, test = FolderImages(train_split, self._shape), FolderImages(test_split, self._shape)
        if not self._fits_in_memory():
            return train, test
        return _decode_all(train), _decode_all(test)

    @cached_property
    def _listing(self) -> tuple[list[str], FolderSplit, FolderSplit]:
        return list_splits(self._root)

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        return sample_shape(self._listing[1], self._image_size)

    def _fits_in_memory(self) -> bool:
        _, train, test = self._listing
        return fits_in_memory(len(train) + len(test), self._shape, self._memory_limit_mb)


def _normalisation(shape: tuple[int, int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if shape == (3, 32, 32):
        return CIFAR10_MEAN, CIFAR10_STD
    if shape[0] == 1:
        return (0.449,), (0.226,)  # ImageNet turned grey
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet


def fits_in_memory(num_samples: int, shape: tuple[int, int, int], limit_mb: int) -> bool:
    """Whether so many decoded samples take at most `limit_mb` MiB."""
    channels, height, width = shape
    return num_samples * channels * height * width <= limit_mb * 2**20


class FolderImages(ImageStore):
    """Images that stay compressed on disk; each read decodes them."""

    is_in_memory = False

    def __init__(self, split: FolderSplit, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes samples: uint8 [rows, C, H, W] and int64 [rows]; other sizes are resized and cropped."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in enumerate(indices.tolist()):
            images[row] = channels_first(fit(self.decode(index), *self.shape[1:]))
        return torch.from_numpy(images), self.labels(indices)

    def training_reader(self, augment: Augment, seed: int) -> Reader:
        """Unchanged or cut at random; see `ImageStore.training_reader`."""
        return UnchangedReader(self) if augment == "none" else ResizedCropReader(self, seed, flip=augment == "crop_flip")

    def labels(self, indices: Tensor) -> Tensor:
        """Classes of samples, int64 [rows]."""
        return torch.from_numpy(self._split.labels[indices.numpy()])

    def decode(self, index: int) -> Image.Image:
        """Reads one image in its own size, mode L or RGB.

        Raises:
            ValueError: The file is no readable image.
        """
        path = self._split.path(index)
        try:
            with Image.open(path) as image:
                return image.convert("L" if self.shape[0] == 1 else "RGB")
        except (OSError, SyntaxError) as error:
            raise ValueError(f"cannot decode the image {path}: {error}") from error


class ResizedCropReader:
    """Cuts a part of random size and aspect out of every image of a folder, as is usual for ImageNet."""

    def __init__(self, store: FolderImages, seed: int, flip: bool) -> None:
        transforms = require_torchvision("torchvision.transforms.v2")
        self._store = store
        self._seed = seed
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(store.shape[1:], antialias=True),
                transforms.RandomHorizontalFlip(0.5 if flip else 0.0),
            ]
        )

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; randomness is a function of (seed, epoch, sample)."""
        images = np.empty((len(indices), *self._store.shape), np.uint8)
        # torchvision draws from the default generator: borrow it and give it back as it was.
        with torch.random.fork_rng(devices=[]):
            for row, index in enumerate(indices.tolist()):
                seed = derive_seed(self._seed, "augment", epoch, index)
                seed_global_generator(torch.device("cpu"), seed)
                images[row] = channels_first(self._transform(self._store.decode(index)))
        return torch.from_numpy(images), self._store.labels(indices)


def _decode_all(part: FolderImages) -> InMemoryImages:
    # One thread: opening small images holds the interpreter lock, two threads take twice as long.
    return InMemoryImages(*part.gather(torch.arange(len(part))))
