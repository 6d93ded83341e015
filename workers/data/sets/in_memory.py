"""A part of a data set that is held decoded in memory."""

import torch
from torch import Tensor

from greedypipe.workers.data.config import Augment
from greedypipe.workers.data.readers import UnchangedReader, augmented
from greedypipe.workers.data.sets.interface import ImageStore, Reader


class InMemoryImages(ImageStore):
    """Decoded samples: `images` uint8 or float32 [N, C, H, W] (signals [N, C, T], vectors [N, F]), contiguous, and `labels`
    int64 [N], both on CPU."""

    is_in_memory = True
    classes: tuple[str, ...] = ()
    """Arrays do not name their classes."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        assert images.dtype in (torch.uint8, torch.float32), images.dtype
        assert images.dim() in (2, 3, 4) and images.is_contiguous(), images.shape
        assert labels.dtype == torch.int64 and labels.shape == images.shape[:1], labels.shape
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Copies samples; see `ImageStore.gather`."""
        # index_select copies whole images; images[indices] looks up each pixel and is thirty times slower.
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)

    def training_reader(self, augment: Augment, seed: int) -> Reader:
        """See `ImageStore.training_reader`."""
        return augmented(UnchangedReader(self), augment, seed)
