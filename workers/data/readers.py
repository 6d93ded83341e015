"""Ways to read the samples of a batch, with the random changes of training or without."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.workers.data.archives import require_torchvision
from greedypipe.workers.data.augment import augment
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.image_folder import FolderImages, channels_first
from greedypipe.workers.data.images import ImageStore


class Reader(Protocol):
    """Reads samples: a pure function of its arguments and of what it was constructed with."""

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """Reads samples by number (int64 [rows]): uint8 [rows, C, H, W] and int64 [rows], the caller's."""
        ...


def training_reader(config: DataConfig, store: ImageStore, seed: int) -> Reader:
    """Chooses the reader that `config.augment` and the kind of store ask for."""
    flip = config.augment == "crop_flip"
    if config.augment == "none":
        return UnchangedReader(store)
    if isinstance(store, FolderImages):
        return ResizedCropReader(store, seed, flip)
    return PaddedCropReader(store, seed, flip)


class UnchangedReader:
    """Reads samples as they are stored."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; the same for every epoch and batch."""
        return self._store.gather(indices)


class PaddedCropReader:
    """Moves every image by a few pixels and mirrors half of them, by one draw per batch."""

    def __init__(self, store: ImageStore, seed: int, flip: bool) -> None:
        self._store = store
        self._seed = seed
        self._flip = flip

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; randomness is a function of (seed, epoch, batch_id)."""
        images, labels = self._store.gather(indices)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "augment", epoch, batch_id))
        return augment(images, generator, crop=True, flip=self._flip), labels


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
