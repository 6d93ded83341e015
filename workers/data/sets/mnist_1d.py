"""MNIST-1D: ten shapes of twelve numbers, bent and hidden in noise; signals of 40 numbers.

Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D" (ICML 2024, arXiv 2011.14439). The recipe, with its numbers
and the order of its draws: the shape of a digit is padded with 36 to 60 zeros, stretched to 72 numbers, scaled by 0.8 to
1.2 and rotated by up to 47 places; where it is zero, smooth noise takes its place, and white noise is added everywhere; a
ramp of random slope is subtracted, and 40 of the 72 numbers are interpolated. Of 5,000 such signals, shuffled and
normalised, 4,000 are trained on. The shapes are those of the authors' code (Apache-2.0); with their seed, 42, so are the
draws.
"""

from functools import cache
from typing import Final, Literal

import numpy as np
import torch
from pydantic import Field

from greedypipe.workers.data.config import Augment, DataConfig
from greedypipe.workers.data.info import DataInfo, numbered
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet

SAMPLES, TRAIN_SAMPLES, LENGTH = 5000, 4000, 40
PADDING, STRETCHED, PLACES = (36, 60), 72, 48
SCALE, SMOOTH_NOISE, WHITE_NOISE, SLOPE = 0.4, 0.25, 0.02, 0.75
SMOOTHING: Final = 2.0
"""Standard deviation, in places, of the Gaussian that smooths noise; it is cut off at four of them."""
SHAPES: Final = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


class Mnist1dConfig(DataConfig, frozen=True):
    """Digits as signals, 1 x 40, made up by the recipe of MNIST-1D; needs no files and no network."""

    name: Literal["mnist_1d"] = "mnist_1d"
    set_seed: int = Field(42, ge=0, lt=2**32, description="which signals are made up; 42: as published")
    augment: Augment = Field("none", description="random change of the training images; signals and vectors have none")


class Mnist1d(DataSet):
    """The same signals on every machine, up to the rounding of its arithmetic; made up when they are loaded."""

    Config = Mnist1dConfig

    def __init__(self, config: Mnist1dConfig) -> None:
        super().__init__(config)
        self._seed = config.set_seed

    def check_presence(self) -> None:
        """Finds nothing missing: nothing is needed."""

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`."""
        held_out = SAMPLES - TRAIN_SAMPLES
        return DataInfo(
            (1, LENGTH), numbered(10), TRAIN_SAMPLES, held_out, (0.0,), (1.0,), 1.0, fingerprint=f"seed {self._seed}"
        )

    def load(self) -> tuple[InMemoryImages, InMemoryImages]:
        """See `DataSet.load`; takes a second."""
        signals, labels = make_signals(self._seed)
        parts = slice(TRAIN_SAMPLES), slice(TRAIN_SAMPLES, None)
        train, test = (
            InMemoryImages(torch.from_numpy(signals[part, None].copy()), torch.from_numpy(labels[part].copy()))
            for part in parts
        )
        return train, test


@cache
def make_signals(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All signals, float32 [SAMPLES, LENGTH], and their digits, int64 [SAMPLES]."""
    # numpy promises that this generator's numbers never change.
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(len(SHAPES)), SAMPLES // len(SHAPES))
    shapes = _templates()
    signals = np.stack([_signal(shapes[label], random) for label in labels])
    order = random.permutation(SAMPLES)
    signals = (signals - signals[order].mean()) / signals[order].std()
    return signals[order].astype(np.float32), labels[order]


def _templates() -> np.ndarray:
    """The shapes with mean 0 and deviation 1, moved so that they begin at 0, and divided by 6."""
    shapes = np.array(SHAPES)
    shapes = (shapes - shapes.mean(1, keepdims=True)) / shapes.std(1, keepdims=True)
    moved: np.ndarray = (shapes - shapes[:, :1]) / 6.0
    return moved


def _signal(shape: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    low, high = PADDING
    # A shape's own zeros are moved off zero, so that noise takes the place of the padding alone.
    padded = np.concatenate([shape + 1e-8, np.zeros(low + int(random.rand() * (high - low + 1)))])
    signal = _resampled(padded, STRETCHED) * (1 + SCALE * (random.rand() - 0.5))
    signal = np.roll(signal, random.choice(PLACES))
    noise = _smoothed(SMOOTH_NOISE * random.randn(STRETCHED))
    signal = np.where(signal != 0, signal, noise) + WHITE_NOISE * random.randn(STRETCHED)
    slope = SLOPE * (random.rand() - 0.5)
    return _resampled(signal - slope * np.linspace(-0.5, 0.5, STRETCHED), LENGTH)


def _resampled(values: np.ndarray, length: int) -> np.ndarray:
    """Linear interpolation at evenly spaced places."""
    resampled: np.ndarray = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(values)), values)
    return resampled


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Convolution with a Gaussian; the ends are mirrored."""
    radius = int(4 * SMOOTHING + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SMOOTHING) ** 2)
    padded = np.pad(values, radius, mode="symmetric")
    smoothed: np.ndarray = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return smoothed
