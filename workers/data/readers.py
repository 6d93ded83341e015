"""Ways to read the samples of a batch, with the random changes of training or without."""

import torch
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.augment import augment
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
