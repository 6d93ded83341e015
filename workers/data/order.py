"""Which samples form which batch."""

from typing import Protocol

import torch
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed


class ShuffledOrder:
    """Training order: a new permutation of all samples in every epoch, cut into batches.

    A pure function of (seed, batch_id); the permutation of the epoch asked for last is kept.
    """

    def __init__(self, num_samples: int, batch_size: int, drop_last: bool, seed: int) -> None:
        self.num_batches = num_samples // batch_size if drop_last else -(-num_samples // batch_size)
        assert self.num_batches >= 1, f"{num_samples} samples give no batch of {batch_size}"
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def epoch(self, batch_id: int) -> int:
        """Passes over the training set that were complete before this batch."""
        return batch_id // self.num_batches

    def indices(self, batch_id: int) -> Tensor:
        """Sample numbers of a batch, int64 [rows]. The caller must not write into it."""
        assert batch_id >= 0, batch_id
        epoch = self.epoch(batch_id)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "shuffle", epoch))
            self._permutation = torch.randperm(self._num_samples, generator=generator)
            self._epoch = epoch
        first = batch_id % self.num_batches * self._batch_size
        return self._permutation[first : first + self._batch_size]


class Order(Protocol):
    """From the number of a batch to its samples; a pure function. Picklable."""

    num_batches: int
    """Batches of one pass."""

    def epoch(self, batch_id: int) -> int:
        """Passes over the samples that were complete before this batch."""
        ...

    def indices(self, batch_id: int) -> Tensor:
        """Sample numbers of a batch, int64 [rows]. The caller must not write into it."""
        ...


class SubsetOrder:
    """Another order's batches over some samples only.

    Args:
        order: Over as many samples as there are `samples`.
        samples: Their numbers, int64.
    """

    def __init__(self, order: Order, samples: Tensor) -> None:
        self.num_batches = order.num_batches
        self._order = order
        self._samples = samples

    def epoch(self, batch_id: int) -> int:
        """That of the order."""
        return self._order.epoch(batch_id)

    def indices(self, batch_id: int) -> Tensor:
        """Sample numbers of a batch, int64 [rows]."""
        return self._samples.index_select(0, self._order.indices(batch_id))


def split_training(num_samples: int, calibration: int, validation: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample numbers to train on, to calibrate with and to validate on, each in ascending order.

    They do not depend on the run's seed: what was kept back from one run must not be trained on by the next.
    """
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(derive_seed("calibration")))
    kept_back = calibration + validation
    parts = order[kept_back:], order[:calibration], order[calibration:kept_back]
    trained_on, calibrating, validating = (part.sort().values for part in parts)
    return trained_on, calibrating, validating


class SequentialOrder:
    """Held-out order: every sample once, as stored, the uneven last batch included."""

    def __init__(self, num_samples: int, batch_size: int) -> None:
        self.num_batches = -(-num_samples // batch_size)
        self._num_samples = num_samples
        self._batch_size = batch_size

    def epoch(self, batch_id: int) -> int:
        """Always 0: the held-out part is read as it is, whenever it is read."""
        return 0

    def indices(self, batch_id: int) -> Tensor:
        """Sample numbers of a batch, int64 [rows]."""
        assert 0 <= batch_id < self.num_batches, batch_id
        first = batch_id * self._batch_size
        return torch.arange(first, min(first + self._batch_size, self._num_samples))
