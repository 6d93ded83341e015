"""Made-up images, signals or vectors of any shape: a pattern per class, and noise."""

from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch.nn.functional import interpolate

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.info import DataInfo, numbered
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet

_LEVELS: Final = 128


class SyntheticConfig(DataConfig, frozen=True):
    """Made-up images, signals or vectors of any shape; needs no files and no network."""

    name: Literal["synthetic"] = "synthetic"
    shape: list[Annotated[int, Field(ge=1)]] = Field(
        [3, 32, 32],
        min_length=1,
        max_length=3,
        description="channels, height, width in pixels; of signals: channels, length; of vectors: features",
    )
    classes: int = Field(10, ge=2, description="number of classes")
    samples: int = Field(5000, ge=5, description="training samples; a fifth more is held out")


class Synthetic(DataSet):
    """Smooth random pattern of the class plus white noise, each of them uniform over half the grey levels."""

    Config = SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self._shape = tuple(config.shape)
        self._classes = config.classes
        self._samples = config.samples
        self._held_out = config.samples // 5

    def check_presence(self) -> None:
        """Finds nothing missing: nothing is needed."""

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`."""
        channels = self._shape[0] if len(self._shape) > 1 else 1
        mean, std = (0.5,) * channels, (0.25,) * channels
        return DataInfo(self._shape, numbered(self._classes), self._samples, self._held_out, mean, std)

    def load(self) -> tuple[InMemoryImages, InMemoryImages]:
        """See `DataSet.load`; the same images in every process."""
        generator = torch.Generator().manual_seed(derive_seed("synthetic"))
        channels, *size = self._shape if len(self._shape) > 1 else (1, *self._shape)
        coarse = torch.rand(self._classes, channels, *[4] * len(size), generator=generator)
        # Smooth, so that a crop moved by a few pixels still shows the same class.
        mode = "bilinear" if len(size) == 2 else "linear"
        patterns = interpolate(coarse, tuple(size), mode=mode).mul_(_LEVELS - 1).view(-1, *self._shape)
        total = self._samples + self._held_out
        labels = torch.arange(total) % self._classes
        noise = torch.randint(0, _LEVELS, (total, *self._shape), dtype=torch.uint8, generator=generator)
        images = noise.add_(patterns.to(torch.uint8).index_select(0, labels))
        train, test = slice(0, self._samples), slice(self._samples, total)
        return InMemoryImages(images[train], labels[train]), InMemoryImages(images[test], labels[test])
