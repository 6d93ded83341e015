"""The pure function from the number of a mini-batch to its contents."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch.utils.data import Dataset

from greedypipe.workers.data.augment import Prepare
from greedypipe.workers.data.order import Order
from greedypipe.workers.data.pretexts.interface import LoadedBatch
from greedypipe.workers.data.sets.interface import Reader

Finish = Callable[[LoadedBatch], LoadedBatch]
"""The last change of a batch; picklable."""


def as_it_is(batch: LoadedBatch) -> LoadedBatch:
    """No-op."""
    return batch


class NumberedBatches(Dataset[LoadedBatch]):
    """Maps a batch_id to its batch: the same bits in every process that holds a copy. Picklable.

    Args:
        readers: One per view of a sample. The views of a sample are in neighbouring rows of the batch.
        prepare: Normalises samples, or leaves that to whoever asks for them.
        finish: Makes of a batch what the network sees.
    """

    def __init__(self, order: Order, readers: Sequence[Reader], prepare: Prepare, finish: Finish = as_it_is) -> None:
        self._order = order
        self._readers = readers
        self._prepare = prepare
        self._finish = finish

    def __len__(self) -> int:
        """Batches of one pass."""
        return self._order.num_batches

    def __getitem__(self, batch_id: int) -> LoadedBatch:
        epoch, indices = self._order.epoch(batch_id), self._order.indices(batch_id)
        views = [reader.read(indices, epoch, batch_id) for reader in self._readers]
        images, labels = views[0]
        if len(views) > 1:
            images = torch.stack([view for view, _ in views], dim=1).flatten(0, 1)
            labels = labels.repeat_interleave(len(views))
        return self._finish(LoadedBatch(batch_id, self._prepare(images), labels))

    def read(self, batch_ids: Iterable[int]) -> Iterator[LoadedBatch]:
        """Makes the batches one by one in the calling process, each when it is asked for."""
        return map(self.__getitem__, batch_ids)

    def close(self) -> None:
        """Does nothing: there is nothing to end."""
