"""A user's own data set: ``data.name=package.module:Object`` with ``data.options={...}``.

The object is called as ``Object(**options)`` and returns ``(train, test)``. Each of the two parts is either

* a pair ``(images, labels)`` of arrays or tensors: images [N, C, H, W], uint8 or floating-point; labels [N], integers; or
* a map-style torch ``Dataset`` whose items are ``(image, label)``: the image a uint8 or floating-point tensor or array
  [C, H, W], or a PIL image (grey, or taken as RGB); the label an integer.

Labels are 0 to classes - 1, and every class occurs in `train`; a Dataset names them by its attribute ``classes``, as
torchvision's do. All images have one shape and one type.

Bytes are pixels: mean and standard deviation of the training part normalise them. Floating-point images are taken as
already normalised: the network sees them as they are, in float32.

Arrays stay in memory. A Dataset is read sample by sample when a batch is made, ahead of need by `data.loader_workers`
processes, for which it must be picklable. The labels of all its samples are needed before: its attribute ``targets`` gives
them, as torchvision's do; else every sample is read once, in every process.

`data.augment` applies to both kinds. Every process of a run calls the object, possibly twice: it must return the same
samples each time. Random changes inside a Dataset draw from torch's default generator, which is seeded for every sample.
"""

import hashlib
import math
import pickle
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from greedypipe.pipeline.plugins import Own
from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.info import DataInfo, numbered
from greedypipe.workers.data.own_samples import Part, evenly_spaced, form, store_of
from greedypipe.workers.data.sets.interface import DataSet

MOST_MEASURED: Final = 2048
"""Training images, evenly spaced, of which mean and standard deviation are taken."""


class OwnDataConfig(Own, DataConfig):
    """Your own function or class, called with your options; returns (train, test): arrays or torch Datasets."""

    section = "data"


class OwnData(DataSet):
    """What a user's object returns, as this module says. The object is called once, when it is first needed."""

    Config = OwnDataConfig

    def __init__(self, config: OwnDataConfig) -> None:
        super().__init__(config)
        self._key = config.subject
        self._call = config.call
        self._loader_workers = config.loader_workers

    def check_presence(self) -> None:
        """Calls the user's object and looks at what it returns.

        Raises:
            ValueError: One line: the object raises something, or what it returns is not as this module says.
        """
        for part in self._parts:
            if self._loader_workers and not part.is_in_memory:
                _check_picklable(part, self._key)

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`; reads up to MOST_MEASURED training images."""
        train, test = self._parts
        num_classes = _count_classes(train.labels, test.labels, self._key)
        classes = train.classes if len(train.classes) == num_classes else numbered(num_classes)
        samples, _ = train.gather(evenly_spaced(len(train), MOST_MEASURED))
        held_out, _ = test.gather(torch.tensor([0]))
        if (samples.shape[1:], samples.dtype) != (held_out.shape[1:], held_out.dtype):
            raise ValueError(f"{self._key}: test: got images {form(held_out[0])}, allowed: {form(samples[0])}, as in train")
        channels, height, width = samples.shape[1:]
        mean, std, full_scale = (0.0,) * channels, (1.0,) * channels, 1.0
        if samples.dtype == torch.uint8:
            mean, std = zip(*(_mean_and_std(channel, self._key) for channel in samples.transpose(0, 1)), strict=True)
            full_scale = 255.0
        return DataInfo(
            (channels, height, width),
            classes,
            len(train),
            len(test),
            mean,
            std,
            full_scale,
            class_samples=tuple(train.labels.bincount().tolist()),
            fingerprint=hashlib.sha256(torch.cat([train.labels, test.labels]).numpy().tobytes()).hexdigest(),
        )

    def load(self) -> tuple[Part, Part]:
        """See `DataSet.load`."""
        return self._parts

    @cached_property
    def _parts(self) -> tuple[Part, Part]:
        # What the user's code draws, or seeds, must not reach the default generator.
        with torch.random.fork_rng(devices=[]):
            seed_global_generator(torch.device("cpu"), derive_seed(self._key))
            parts = self._call()
        if not (isinstance(parts, tuple | list) and len(parts) == 2):
            raise ValueError(f"{self._key}: returned {type(parts).__name__}, allowed: (train, test)")
        return store_of(parts[0], f"{self._key}: train"), store_of(parts[1], f"{self._key}: test")


def _check_picklable(part: Part, key: str) -> None:
    try:
        pickle.dumps(part)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{key}: loader processes cannot be sent the Dataset ({error}): use data.loader_workers=0"
        ) from None


def _count_classes(train: Tensor, test: Tensor, key: str) -> int:
    """Number of classes; raises ValueError where labels are not 0 to classes - 1, each of them in `train`."""
    present = train.unique()
    if len(present) < 2:
        raise ValueError(f"{key}: train: got only the label {present.item()}, allowed: two classes or more")
    if not torch.equal(present, torch.arange(len(present))):
        raise ValueError(
            f"{key}: train: got {len(present)} different labels from {present[0]} to {present[-1]}, "
            f"allowed: 0 to {len(present) - 1}"
        )
    if test.min() < 0 or test.max() >= len(present):
        raise ValueError(
            f"{key}: test: got labels {test.min()} to {test.max()}, allowed: 0 to {len(present) - 1}, as in train"
        )
    return len(present)


def _mean_and_std(levels: Tensor, key: str) -> tuple[float, float]:
    """Of bytes divided by 255; counted in integers, so that every host finds the same."""
    counts = enumerate(torch.bincount(levels.flatten(), minlength=256).tolist())
    total, first, second = map(sum, zip(*((n, n * level, n * level**2) for level, n in counts), strict=True))
    variance = total * second - first**2
    if variance == 0:
        raise ValueError(f"{key}: train: got a channel whose pixels are all {first // total}, allowed: channels that differ")
    return first / total / 255, math.sqrt(variance) / total / 255
