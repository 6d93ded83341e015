"""One mini-batch, and the pure function from its number to its contents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.utils.data import Dataset

from greedypipe.workers.data.augment import normalise
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.order import SequentialOrder, ShuffledOrder, SubsetOrder
from greedypipe.workers.data.sets.interface import Reader


@dataclass(frozen=True, eq=False)
class LoadedBatch:
    """Normalised samples float32 [rows, *shape] and their classes int64 [rows], on CPU, owned by the receiver."""

    batch_id: int
    images: Tensor
    labels: Tensor


class NumberedBatches(Dataset[LoadedBatch]):
    """Maps a batch_id to its batch: the same bits in every process that holds a copy. Picklable."""

    def __init__(self, order: ShuffledOrder | SequentialOrder | SubsetOrder, reader: Reader, info: DataInfo) -> None:
        self._order = order
        self._reader = reader
        self._info = info

    def __len__(self) -> int:
        """Batches of one pass."""
        return self._order.num_batches

    def __getitem__(self, batch_id: int) -> LoadedBatch:
        epoch = self._order.epoch(batch_id)
        images, labels = self._reader.read(self._order.indices(batch_id), epoch, batch_id)
        info = self._info
        return LoadedBatch(batch_id, normalise(images, info.mean, info.std, info.full_scale), labels)

    def read(self, batch_ids: Iterable[int]) -> Iterator[LoadedBatch]:
        """Makes the batches one by one in the calling process, each when it is asked for."""
        return map(self.__getitem__, batch_ids)

    def close(self) -> None:
        """Does nothing: there is nothing to end."""
