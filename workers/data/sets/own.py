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
import pickle
from functools import cached_property

import torch

from greedypipe.pipeline.plugins import Own
from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.described import described
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.own_samples import Part, store_of
from greedypipe.workers.data.sets.interface import DataSet


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
        labels = torch.cat([train.labels, test.labels])
        return described(train, test, self._key, hashlib.sha256(labels.numpy().tobytes()).hexdigest())

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
