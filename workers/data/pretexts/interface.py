"""What a pretext task is to the data: a change of the network's input that gives a target without labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.info import DataInfo


@dataclass(frozen=True, eq=False)
class LoadedBatch:
    """Samples [rows, *shape] and their classes int64 [rows], on CPU, owned by the receiver.

    Samples are normalised, float32; or, from a source that is told to leave them so, as they are stored.

    Attributes:
        images: What the network sees. With several views of a sample they are in neighbouring rows.
        extras: What else methods may need of the batch, by name; without an "image" of its own that is `images`.
    """

    batch_id: int
    images: Tensor
    labels: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


class Pretext(ABC):
    """Changes batches, and adds what methods need to be told of the change. Picklable.

    All blocks share one stream of inputs, so there is one pretext task in a run. Random choices are a function of the seed
    and the batch_id.

    Args:
        views: Rows of a training batch that show one sample.
    """

    only_moves: ClassVar[bool] = False
    """Whether it only moves what is in a sample, so that normalising it before or afterwards is the same."""

    def __init__(self, info: DataInfo, seed: int, views: int) -> None:
        self._info = info
        self._seed = seed
        self._views = views

    @classmethod
    def extras(cls, info: DataInfo) -> tuple[TensorSpec, ...]:
        """What training batches carry besides the image."""
        return ()

    @classmethod
    def objection(cls, info: DataInfo) -> str:
        """Why there is no such task with such samples; empty where there is one."""
        return ""

    @abstractmethod
    def training(self, batch: LoadedBatch) -> LoadedBatch:
        """A training batch as the network sees it; may take over what it is given."""

    def evaluation(self, batch: LoadedBatch) -> LoadedBatch:
        """A batch that the network is judged on, as it sees it."""
        return batch

    def _generator(self, batch_id: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self._seed, "pretext", batch_id))


class NoPretext(Pretext):
    """Batches as they are."""

    only_moves = True

    def training(self, batch: LoadedBatch) -> LoadedBatch:
        return batch
