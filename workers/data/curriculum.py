"""Training in the order of difficulty: easy samples first, by what a trained network has found easy.

After 2104.10461, which trains greedily on a curriculum, with the fixed exponential pacing of Hacohen and Weinshall (ICML
2019, 1904.03626). All blocks share one stream, and so one pace.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.output import printable

CURRICULUM, ANTI_CURRICULUM = "curriculum", "anti_curriculum"


@dataclass(frozen=True)
class Pacing:
    """How the part of the samples that is trained on grows.

    Attributes:
        start: Share of the samples at first.
        growth: Factor on it, every `every` batches, until it is 1.
    """

    start: float
    growth: float
    every: int

    def share(self, stage: int) -> float:
        """Share of the samples in a stage of `every` batches."""
        is_whole = stage * math.log(self.growth) >= -math.log(self.start)
        return 1.0 if is_whole else self.start * self.growth**stage


class CurriculumOrder:
    """Batches of the first samples by rank alone; of more and more of them, as `pacing` says. Every batch is full.

    A pure function of (seed, batch_id). Where as many samples are in use as before, they are shuffled anew once all of them
    have been drawn. An epoch has as many batches as with a shuffled order, whatever its batches hold.

    Args:
        ranked: Sample numbers, int64, in the order in which they come into use.
    """

    def __init__(self, ranked: Tensor, batch_size: int, drop_last: bool, pacing: Pacing, seed: int) -> None:
        count = len(ranked)
        self.num_batches = count // batch_size if drop_last else -(-count // batch_size)
        self._ranked = ranked
        self._batch_size = batch_size
        self._pacing = pacing
        self._seed = seed
        self._pass = (-1, -1)
        self._permutation = torch.empty(0, dtype=torch.int64)

    def epoch(self, batch_id: int) -> int:
        """Batches before this one, in lengths of the training set."""
        return batch_id // self.num_batches

    def in_use(self, batch_id: int) -> int:
        """How many samples the batch is drawn from: at least a batch of them."""
        share = self._pacing.share(batch_id // self._pacing.every)
        return max(self._batch_size, min(len(self._ranked), round(share * len(self._ranked))))

    def indices(self, batch_id: int) -> Tensor:
        """Sample numbers of a batch, int64 [batch_size]. The caller must not write into it."""
        size = self.in_use(batch_id)
        begin = self._begin_of(batch_id, size)
        lap, position = divmod(batch_id - begin, size // self._batch_size)
        if (begin, lap) != self._pass:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "curriculum", begin, lap))
            self._permutation = self._ranked[torch.randperm(size, generator=generator)]
            self._pass = begin, lap
        return self._permutation[position * self._batch_size : (position + 1) * self._batch_size]

    def _begin_of(self, batch_id: int, size: int) -> int:
        """The first batch of the stages that use this many samples."""
        first, last = 0, batch_id // self._pacing.every
        while first < last:  # sizes never shrink
            middle = (first + last) // 2
            first, last = (first, middle) if self.in_use(middle * self._pacing.every) == size else (middle + 1, last)
        return first * self._pacing.every


def read_difficulties(config: DataConfig, samples: int) -> Tensor:
    """Difficulties of all training samples, kept back ones included: float32 [samples].

    Raises:
        ValueError: One line: the file is missing, no .npy file, or has not one finite number per sample.
    """
    key = f"data.difficulty={printable(config.difficulty)}"
    if not Path(config.difficulty).is_file():
        raise ValueError(f"{key} is no file: `greedypipe evaluate RUN --difficulty FILE` writes one")
    try:
        values = np.load(config.difficulty, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{key} is no .npy file ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(values, np.ndarray) or values.shape != (samples,) or values.dtype.kind not in "fiu":
        got = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else "several arrays"
        raise ValueError(f"{key}: got {got}, allowed: {samples} numbers, one per training sample")
    if not np.isfinite(values).all():
        raise ValueError(f"{key}: got numbers that are not finite")
    return torch.from_numpy(values.astype(np.float32))


def curriculum_of(config: DataConfig, trained_on: Tensor, difficulties: Tensor, seed: int) -> CurriculumOrder:
    """The order of these samples, the easiest or the hardest first.

    Args:
        trained_on: Sample numbers, int64, ascending.
        difficulties: Of all samples.
    """
    ranks = difficulties[trained_on].argsort(stable=True, descending=config.order == ANTI_CURRICULUM)
    pacing = Pacing(config.pacing_start, config.pacing_growth, config.pacing_steps)
    return CurriculumOrder(trained_on[ranks], config.batch_size, config.drop_last, pacing, seed)
