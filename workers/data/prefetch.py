"""Batches made ahead of need by other processes."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, Sampler

from greedypipe.workers.data.batch import LoadedBatch, NumberedBatches

# Long enough for a loader process to start and to decode a large batch from a slow disk.
TIMEOUT_S: Final = 300.0
BATCHES_PER_PROCESS: Final = 2


class _BatchIds(Sampler[int]):
    """The numbers of the current reading: a loader keeps its sampler for life, but not its readings."""

    def __init__(self) -> None:
        self.batch_ids: Iterable[int] = ()

    def __iter__(self) -> Iterator[int]:
        return iter(self.batch_ids)


class PrefetchedBatches:
    """Has the batches of `NumberedBatches` made by `loader_workers` processes, each up to two batches ahead.

    The processes start with the first reading and stay until `close`. Finished batches wait in shared memory.
    """

    def __init__(self, batches: NumberedBatches, loader_workers: int) -> None:
        self._batch_ids = _BatchIds()
        self._loader: DataLoader[LoadedBatch] = DataLoader(
            batches,
            batch_size=None,  # an item is a whole batch already
            sampler=self._batch_ids,
            num_workers=loader_workers,
            prefetch_factor=BATCHES_PER_PROCESS,
            persistent_workers=True,
            multiprocessing_context="forkserver",
            timeout=TIMEOUT_S,
            generator=torch.Generator(),  # else each reading draws a number from the default generator
        )

    def read(self, batch_ids: Iterable[int]) -> Iterator[LoadedBatch]:
        """Starts making batches and returns them in the given order; ends an earlier reading.

        Each `next` waits for a loader process, up to TIMEOUT_S; RuntimeError when it has died or is late.
        """
        self._batch_ids.batch_ids = batch_ids
        return iter(self._loader)

    def close(self) -> None:
        """Ends the processes and waits for them; safe to call twice."""
        # DataLoader has no public way to end persistent processes while somebody still holds the iterator.
        iterator: Any = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
