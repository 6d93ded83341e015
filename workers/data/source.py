"""The batch source of stage 0: numbered batches, a pure function of the seed."""

import itertools
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from greedypipe.workers.data.batch import LoadedBatch, NumberedBatches
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.order import SequentialOrder, ShuffledOrder, SubsetOrder, split_for_calibration
from greedypipe.workers.data.prefetch import PrefetchedBatches
from greedypipe.workers.data.readers import UnchangedReader
from greedypipe.workers.data.sets.interface import DataInfo
from greedypipe.workers.data.sets.registry import open_data

__all__ = ["BatchSource", "LoadedBatch"]


class BatchSource:
    """Training and held-out batches of one data set.

    The order of samples is a function of (seed, epoch), their random changes one of (seed, epoch, batch_id),
    so a run resumed at any batch_id goes on with the same bits. The default generators are left as they were.

    Loads the data set on construction, which may download and take seconds; call `DataSet.check` before.
    A context manager: leaving it ends the loader processes.

    Args:
        info: What `DataSet.check` has returned, where somebody has asked before.

    Raises:
        ValueError: The data are missing or damaged.
        ConnectionError: The download failed.
    """

    def __init__(self, config: DataConfig, seed: int, info: DataInfo | None = None) -> None:
        data = open_data(config)
        info = info or data.describe()
        train, test = data.load()
        expected = info.train_samples + config.calibration_samples
        if (len(train), len(test)) != (expected, info.test_samples):
            raise ValueError(
                f"data.name={config.name} holds {len(train)} training and {len(test)} held-out samples, "
                f"expected {expected} and {info.test_samples}: delete the files and get them again"
            )
        trained_on, kept_back = split_for_calibration(len(train), config.calibration_samples)
        order = SubsetOrder(ShuffledOrder(len(trained_on), config.batch_size, config.drop_last, seed), trained_on)
        calibration = SubsetOrder(SequentialOrder(len(kept_back), config.batch_size), kept_back)
        self._calibration = NumberedBatches(calibration, UnchangedReader(train), info)
        self._num_calibration_batches = calibration.num_batches
        test_order = SequentialOrder(len(test), config.batch_size)
        self._steps_per_epoch = order.num_batches
        self._num_test_batches = test_order.num_batches
        self._training = NumberedBatches(order, train.training_reader(config.augment, seed), info)
        test_batches = NumberedBatches(test_order, UnchangedReader(test), info)
        self._training_stream: NumberedBatches | PrefetchedBatches = self._training
        self._test_stream: NumberedBatches | PrefetchedBatches = test_batches
        if config.loader_workers > 0 and not train.is_in_memory:
            self._training_stream = PrefetchedBatches(self._training, config.loader_workers)
            self._test_stream = PrefetchedBatches(test_batches, config.loader_workers)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches per epoch."""
        return self._steps_per_epoch

    @property
    def num_test_batches(self) -> int:
        """Batches of the held-out part, the uneven last one included."""
        return self._num_test_batches

    def training_batch(self, batch_id: int) -> LoadedBatch:
        """Makes one training batch in this process; batch_id counts from 0 through all epochs."""
        return self._training[batch_id]

    def training_batches(self, first: int = 0) -> Iterator[LoadedBatch]:
        """Returns the endless training batches from batch_id `first`, with the bits of `training_batch`.

        What is not in memory is read ahead by `loader_workers` processes; `next` waits for them. One reading at a
        time: a second call ends the first.
        """
        return self._training_stream.read(itertools.count(first))

    def calibration_batches(self) -> Iterator[LoadedBatch]:
        """Makes what no training batch holds, once, as stored: `data.calibration_samples` samples."""
        return self._calibration.read(range(self._num_calibration_batches))

    def test_batches(self) -> Iterator[LoadedBatch]:
        """Returns the held-out part once, as stored, batch_id from 0. One reading at a time."""
        return self._test_stream.read(range(self._num_test_batches))

    def close(self) -> None:
        """Ends the loader processes and waits for them; safe to call twice."""
        self._training_stream.close()
        self._test_stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
