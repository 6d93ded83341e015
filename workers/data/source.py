"""The batch source of stage 0: numbered batches, a pure function of the seed."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.augment import Prepare, normalising
from greedypipe.workers.data.batch import NumberedBatches
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.curriculum import curriculum_of, read_difficulties
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.order import Order, SequentialOrder, ShuffledOrder, SubsetOrder, split_training
from greedypipe.workers.data.prefetch import PrefetchedBatches
from greedypipe.workers.data.pretexts.interface import LoadedBatch
from greedypipe.workers.data.pretexts.registry import PRETEXTS
from greedypipe.workers.data.readers import UnchangedReader
from greedypipe.workers.data.sets.interface import ImageStore, Reader, TestPart
from greedypipe.workers.data.sets.registry import open_data

__all__ = ["BatchSource", "LoadedBatch", "held_out_batches"]


class BatchSource:
    """Batches of all parts of one data set.

    The order of samples is a function of (seed, epoch), their random changes one of (seed, epoch, batch_id),
    so a run resumed at any batch_id continues with the same bits. The default generators are left as they were.

    Loads the data set on construction, which may download and take seconds; call `DataSet.check` before.
    A context manager: leaving it ends the loader processes.

    Args:
        info: As `DataSet.check` returns it, where that is known.
        prepare: What batches hold of samples; None: normalised ones.

    Raises:
        ValueError: The data are missing or damaged.
        ConnectionError: The download failed.
    """

    def __init__(self, config: DataConfig, seed: int, info: DataInfo | None = None, prepare: Prepare | None = None) -> None:
        data = open_data(config)
        info = info or data.describe()
        train, test = data.load()
        validation = config.validation_samples(len(train))
        expected = info.train_samples + config.calibration_samples + validation
        if (len(train), len(test)) != (expected, info.test_samples):
            raise ValueError(
                f"data.name={config.name} holds {len(train)} training and {len(test)} held-out samples, "
                f"expected {expected} and {info.test_samples}: delete the files and get them again"
            )
        self._prepare, self._batch_size = prepare or normalising(info), config.batch_size
        self._pretext = PRETEXTS[config.pretext](info, seed, config.views)
        trained_on, calibrating, validating = split_training(len(train), config.calibration_samples, validation)
        order = _order(config, trained_on, len(train), seed)
        self._steps_per_epoch = order.num_batches
        self._training = NumberedBatches(order, _views(train, config, seed), self._prepare, self._pretext.training)
        self._calibration, self._whole = self._unchanged(train, calibrating), self._unchanged(train)
        self._test = self._evaluation = self._unchanged(test)
        if validation:
            self._evaluation = self._unchanged(train, validating)
        elif (own := data.load_validation()) is not None:
            self._evaluation = self._unchanged(own)
        self._training_stream: NumberedBatches | PrefetchedBatches = self._training
        self._evaluation_stream: NumberedBatches | PrefetchedBatches = self._evaluation
        if config.loader_workers > 0 and not train.is_in_memory:
            self._training_stream = PrefetchedBatches(self._training, config.loader_workers)
            self._evaluation_stream = PrefetchedBatches(self._evaluation, config.loader_workers)

    def _unchanged(self, store: ImageStore, samples: Tensor | None = None) -> NumberedBatches:
        """Batches of a part as it is stored, or of these of its samples."""
        chosen = torch.arange(len(store)) if samples is None else samples
        order = SubsetOrder(SequentialOrder(len(chosen), self._batch_size), chosen)
        return NumberedBatches(order, [UnchangedReader(store)], self._prepare, self._pretext.evaluation)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches per epoch."""
        return self._steps_per_epoch

    @property
    def num_evaluation_batches(self) -> int:
        """Batches of one evaluation pass, the uneven last one included."""
        return len(self._evaluation)

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
        return self._calibration.read(range(len(self._calibration)))

    def stored_training_batches(self) -> Iterator[LoadedBatch]:
        """Makes all training samples once, as stored and in their order, those that are kept back included."""
        return self._whole.read(range(len(self._whole)))

    def evaluation_batches(self) -> Iterator[LoadedBatch]:
        """Returns what a run is evaluated on once, as stored, batch_id from 0: the validation part where there is one, else
        the test part. One reading at a time."""
        return self._evaluation_stream.read(range(len(self._evaluation)))

    def test_batches(self) -> Iterator[LoadedBatch]:
        """Makes the test part once, as stored, batch_id from 0."""
        return self._test.read(range(len(self._test)))

    def close(self) -> None:
        """Ends the loader processes and waits for them; safe to call twice."""
        self._training_stream.close()
        self._evaluation_stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _order(config: DataConfig, trained_on: Tensor, samples: int, seed: int) -> Order:
    """The order of the samples that are trained on, of so many in all."""
    if config.order == "shuffled":
        return SubsetOrder(ShuffledOrder(len(trained_on), config.batch_size, config.drop_last, seed), trained_on)
    return curriculum_of(config, trained_on, read_difficulties(config, samples), seed)


def _views(store: ImageStore, config: DataConfig, seed: int) -> list[Reader]:
    """How each view of a sample is read in training; the first as if it were the only one."""
    seeds = [seed, *(derive_seed(seed, "view", view) for view in range(1, config.views))]
    return [store.training_reader(config.augment, one) for one in seeds]


def held_out_batches(config: DataConfig, part: TestPart, trained: DataInfo) -> Iterator[LoadedBatch]:
    """Makes the batches of a test part once, normalised and labelled as a network expects that was trained on `trained`."""
    order = SequentialOrder(len(part.store), config.batch_size)
    pretext = PRETEXTS[config.pretext](trained, seed=0, views=1)
    batches = NumberedBatches(order, [UnchangedReader(part.store)], normalising(trained), pretext.evaluation)
    for batch in batches.read(range(len(batches))):
        yield replace(batch, labels=part.labels.index_select(0, batch.labels))
