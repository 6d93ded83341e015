"""Ways to read the samples of a batch, with the random changes of training or without."""

import torch
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.augment import augment, resized_crop
from greedypipe.workers.data.config import Augment
from greedypipe.workers.data.sets.interface import ImageStore, Reader


class UnchangedReader:
    """Reads samples as they are stored."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; the same for every epoch and batch."""
        return self._store.gather(indices)


class PaddedCropReader:
    """Moves what another reader reads by a few pixels and mirrors half of it, by one draw per batch."""

    def __init__(self, reader: Reader, seed: int, flip: bool) -> None:
        self._reader = reader
        self._seed = seed
        self._flip = flip

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; randomness is a function of (seed, epoch, batch_id)."""
        images, labels = self._reader.read(indices, epoch, batch_id)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "augment", epoch, batch_id))
        return augment(images, generator, crop=True, flip=self._flip), labels


class ResizedCropReader:
    """Enlarges a part of every image that another reader reads, and mirrors half of them, by draws of each sample's own."""

    def __init__(self, reader: Reader, seed: int, flip: bool) -> None:
        self._reader = reader
        self._seed = seed
        self._flip = flip

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """See `Reader.read`; randomness is a function of (seed, epoch, sample)."""
        images, labels = self._reader.read(indices, epoch, batch_id)
        for row, index in enumerate(indices.tolist()):
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "augment", epoch, index))
            *draws, coin = torch.rand(4, generator=generator).tolist()
            image = resized_crop(images[row], draws)
            images[row] = image.flip(2) if self._flip and coin < 0.5 else image
        return images, labels


def augmented(reader: Reader, how: Augment, seed: int) -> Reader:
    """A reader whose images are changed at random as `how` says, or `reader` itself."""
    if how == "none":
        return reader
    changing = PaddedCropReader if how in ("crop", "crop_flip") else ResizedCropReader
    return changing(reader, seed, flip=how.endswith("_flip"))
