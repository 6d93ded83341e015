"""Handwritten digits of scikit-learn: 1797 grey images of 8 x 8 pixels."""

import importlib.util
from typing import Final, Literal

import numpy as np
import torch

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.info import DataInfo, numbered
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet

NUM_DIGITS: Final = 1797
NUM_HELD_OUT_DIGITS: Final = NUM_DIGITS // 5


class DigitsConfig(DataConfig, frozen=True):
    """Handwritten digits of scikit-learn, 1 x 8 x 8; needs no files and no network."""

    name: Literal["digits"] = "digits"


class Digits(DataSet):
    """Needs scikit-learn, no files and no network; a fifth is held out, the same samples for every seed."""

    Config = DigitsConfig

    def check_presence(self) -> None:
        """See `DataSet.check_presence`."""
        if importlib.util.find_spec("sklearn") is None:
            raise ValueError("data.name=digits needs scikit-learn: `pip install scikit-learn`")

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`."""
        num_train = NUM_DIGITS - NUM_HELD_OUT_DIGITS
        return DataInfo((1, 8, 8), numbered(10), num_train, NUM_HELD_OUT_DIGITS, (0.2874,), (0.3540,))

    def load(self) -> tuple[InMemoryImages, InMemoryImages]:
        """See `DataSet.load`."""
        self.check_presence()
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy((digits.images * 15).astype(np.uint8)[:, None])
        labels = torch.from_numpy(digits.target.astype(np.int64))
        assert len(images) == NUM_DIGITS
        # The held-out part must not depend on the seed of the run: accuracies of two runs are to be comparable.
        generator = torch.Generator().manual_seed(derive_seed("digits", "held-out"))
        order = torch.randperm(NUM_DIGITS, generator=generator)
        test, train = order[:NUM_HELD_OUT_DIGITS], order[NUM_HELD_OUT_DIGITS:]
        return InMemoryImages(images[train], labels[train]), InMemoryImages(images[test], labels[test])
