"""A user's folder of images: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/), or CLASS/*.jpg alone."""

import hashlib
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.workers.data.augment import LEAST_AREA
from greedypipe.workers.data.config import Augment, DataConfig
from greedypipe.workers.data.folder_listing import FolderSplit, Listing, list_folder, list_held_out
from greedypipe.workers.data.folder_shape import Shape, sample_shape
from greedypipe.workers.data.image_files import channels_first, decode, fit
from greedypipe.workers.data.info import DataInfo, label_map
from greedypipe.workers.data.readers import UnchangedReader
from greedypipe.workers.data.sets.archives import CIFAR10_MEAN, CIFAR10_STD
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet, ImageStore, Reader, TestPart, require_torchvision
from greedypipe.workers.output import some
from greedypipe.workers.user_path import UserPath


class ImageFolderConfig(DataConfig, frozen=True):
    """Your own folder of images: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/), or CLASS/*.jpg with test_share."""

    name: Literal["image_folder"] = "image_folder"
    root: UserPath = Field(
        "data", min_length=1, description="folder that holds train/ and test/ (or val/), or the class folders"
    )
    test_share: float = Field(
        0, ge=0, lt=1, description="share of every class to hold out of a folder that has no test/ or val/; 0: refuse it"
    )
    channels: Literal[0, 1, 3] = Field(0, description="1: grey, 3: RGB, 0: grey if no image of the folder has colours")
    image_size: int = Field(0, ge=0, description="height and width in pixels; 0: those of the images, if all agree")
    memory_limit_mb: int = Field(4096, ge=0, description="decode once into memory up to this size (MiB), above it per batch")


class ImageFolder(DataSet):
    """A folder, listed once; its images are decoded by `load` or, above `memory_limit_mb`, when they are read."""

    Config = ImageFolderConfig

    def __init__(self, config: ImageFolderConfig) -> None:
        super().__init__(config)
        self._folder = config

    def check_presence(self) -> None:
        """See `DataSet.check_presence`."""
        if self._folder.augment != "none" and not self._fits_in_memory():
            require_torchvision("torchvision.transforms.v2")

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`; reads the headers of all images, unless channels and image_size are given."""
        found, (shape, shape_notes) = self._listing, self._shape
        mean, std = _normalisation(shape)
        untested = [f"no held-out image of {some(found.untested)}"] if found.untested else []
        return DataInfo(
            shape,
            found.classes,
            len(found.train),
            len(found.test),
            mean,
            std,
            validation_samples=len(found.validation) if found.validation else 0,
            class_samples=tuple(np.bincount(found.train.labels, minlength=len(found.classes)).tolist()),
            fingerprint=hashlib.sha256("".join(part.digest for part in found.parts).encode()).hexdigest(),
            notes=(*found.notes, *untested, *shape_notes),
        )

    def load(self) -> tuple[ImageStore, ImageStore]:
        """See `DataSet.load`."""
        return self._load(self._listing.train), self._load(self._listing.test)

    def load_validation(self) -> ImageStore | None:
        """See `DataSet.load_validation`."""
        return self._load(self._listing.validation) if self._listing.validation else None

    def load_test_for(self, trained: DataInfo) -> TestPart:
        """See `DataSet.load_test_for`; needs no training part, and brings images to the network's shape. Without test/ and
        val/, and without `test_share`, all images of the folder are the test part."""
        if not trained.has_images or trained.input_shape[0] not in (1, 3) or not trained.has_bytes:
            raise ValueError("data.name: got image_folder, allowed: data of the kind on which the network was trained")
        channels, height, width = trained.input_shape
        shape = channels, height, width
        if self._folder.test_share:
            found = self._listing
            labels = label_map(found.classes, trained.classes)
            return TestPart(FolderImages(found.test, shape), labels, found.notes)
        split, notes = list_held_out(self._folder.root, trained.classes)
        return TestPart(FolderImages(split, shape), torch.arange(trained.num_classes), notes)

    @cached_property
    def _listing(self) -> Listing:
        return list_folder(self._folder.root, self._folder.test_share)

    @cached_property
    def _shape(self) -> tuple[Shape, tuple[str, ...]]:
        return sample_shape(self._listing.parts, self._folder.channels, self._folder.image_size)

    def _fits_in_memory(self) -> bool:
        return fits_in_memory(sum(map(len, self._listing.parts)), self._shape[0], self._folder.memory_limit_mb)

    def _load(self, part: FolderSplit) -> ImageStore:
        images = FolderImages(part, self._shape[0])
        # One thread: opening small images holds the interpreter lock, two threads take twice as long.
        if self._fits_in_memory():
            return InMemoryImages(*images.gather(torch.arange(len(images))))
        return images


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
        return UnchangedReader(self) if augment == "none" else StreamedCropReader(self, seed, augment)

    def labels(self, indices: Tensor) -> Tensor:
        """Classes of samples, int64 [rows]."""
        return torch.from_numpy(self._split.labels[indices.numpy()])

    def decode(self, index: int) -> Image.Image:
        """Reads one image upright in its own size, mode L or RGB.

        Raises:
            ValueError: The file is no readable image; names it.
        """
        return decode(self._split.path(index), self.shape[0])


class StreamedCropReader:
    """Cuts a part of random size out of every image of a folder: of any aspect, as is usual for ImageNet, or a square of
    LEAST_AREA or more."""

    def __init__(self, store: FolderImages, seed: int, augment: Augment) -> None:
        transforms = require_torchvision("torchvision.transforms.v2")
        self._store = store
        self._seed = seed
        part = {"scale": (LEAST_AREA, 1.0), "ratio": (1.0, 1.0)} if augment.startswith("resized") else {}
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(store.shape[1:], antialias=True, **part),
                transforms.RandomHorizontalFlip(0.5 if augment.endswith("_flip") else 0.0),
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
