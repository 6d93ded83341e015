"""What a data set is to the rest: its description, whether it can be loaded, and the two parts that it loads."""

import hashlib
import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import ClassVar, Protocol

from torch import Tensor

from greedypipe.workers.data.config import Augment, DataConfig
from greedypipe.workers.data.curriculum import read_difficulties
from greedypipe.workers.data.info import DataInfo, label_map
from greedypipe.workers.data.pretexts.registry import PRETEXTS


class Reader(Protocol):
    """Reads samples: a pure function of its arguments and of what it was constructed with. Picklable."""

    def read(self, indices: Tensor, epoch: int, batch_id: int) -> tuple[Tensor, Tensor]:
        """Reads samples by number (int64 [rows]): uint8 or float32 [rows, C, H, W] and int64 [rows], the caller's."""
        ...


class ImageStore(ABC):
    """One part of a data set, from which any samples can be read in any order. Picklable, for loader processes."""

    is_in_memory: ClassVar[bool]
    """Whether reading is no more than copying, so that loader processes would gain nothing."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Reads samples by number (int64 [rows]) as stored: uint8 or float32 [rows, C, H, W] and int64 [rows].

        Both belong to the caller.

        Raises:
            ValueError: A sample cannot be read.
        """

    @abstractmethod
    def training_reader(self, augment: Augment, seed: int) -> Reader:
        """Chooses how this part is read in training; every random change is a function of `seed` and `Reader.read`."""


@dataclass(frozen=True, eq=False)
class TestPart:
    """Held-out samples for a network that is trained already.

    Attributes:
        labels: int64 [classes]: for each label of `store`, that of the network's class of the same name.
        notes: What a user should know of it, in lines.
    """

    store: ImageStore
    labels: Tensor
    notes: tuple[str, ...] = ()


class DataSet(ABC):
    """A data set as configured. What it has once listed or computed, it keeps; its files must not change meanwhile.

    The constructor takes a `Config` of its own and does no work.
    """

    Config: ClassVar[type[DataConfig]]
    """The set's keys in the section `data`."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config

    @abstractmethod
    def check_presence(self) -> None:
        """Looks for files and libraries; reads and downloads nothing.

        Raises:
            ValueError: One line: what is missing, with the command that gets it.
        """

    @abstractmethod
    def describe_whole(self) -> DataInfo:
        """Describes the set with all its training samples; called once. Downloads nothing.

        Raises:
            ValueError: The data are malformed.
        """

    @abstractmethod
    def load(self) -> tuple[ImageStore, ImageStore]:
        """Loads the training part and the test part; blocks for the reading, decoding and downloading.

        Raises:
            ValueError: The files are missing (and may not be downloaded) or damaged.
            ConnectionError: The download failed.
        """

    def load_validation(self) -> ImageStore | None:
        """Loads the validation part that the set has of its own; blocks like `load`. None: it has none."""
        return None

    def load_test_for(self, trained: DataInfo) -> TestPart:
        """Loads the test part for a network that was trained on data like `trained`. Blocks like `load`.

        Raises:
            ValueError: One line: there is a class that the network does not know, images have another shape, or the files
                are missing or damaged.
        """
        own = self.describe_whole()
        if (own.input_shape, own.full_scale) != (trained.input_shape, trained.full_scale):
            got, allowed = (" x ".join(map(str, one.input_shape)) for one in (own, trained))
            raise ValueError(f"data: got images {got}, allowed: {allowed}, on which the network was trained")
        return TestPart(self.load()[1], label_map(own.classes, trained.classes), own.notes)

    def describe(self) -> DataInfo:
        """Returns shape, classes and sizes; cheap enough for every process to call it.

        Raises:
            ValueError: The data are malformed, or nothing is left to train on.
        """
        return self._info

    def check(self) -> DataInfo:
        """Finds what would stop or spoil a training run on this data; quick, for every process before it starts.

        Returns:
            What `describe` returns.

        Raises:
            ValueError: One line: the data or a library are missing, the data are malformed, or the batch size does not
                suit the number of training samples.
        """
        self.check_presence()
        self._check_changes()
        _check_batches(self._config, self._info.train_samples)
        return self._info

    def _check_changes(self) -> None:
        """Raises ValueError, one line, for changes that such samples do not bear."""
        config, shape = self._config, " x ".join(map(str, self._info.input_shape))
        if config.augment != "none" and not self._info.has_images:
            raise ValueError(f"data.augment: got {config.augment}, allowed: none, for samples {shape}: no images")
        if objection := PRETEXTS[config.pretext].objection(self._info):
            raise ValueError(f"data.pretext: got {config.pretext}, allowed: none, for samples {shape}: {objection}")
        # Views that are equal teach nothing. A user's own Dataset may make them differ by itself.
        if config.views > 1 and config.augment == "none" and config.pretext in ("none", "grey") and ":" not in config.name:
            raise ValueError(
                f"data.views: got {config.views} with data.augment=none, allowed: 1: the views of a sample would be equal"
            )

    @cached_property
    def _info(self) -> DataInfo:
        whole, config = self.describe_whole(), self._config
        validation = config.validation_samples(whole.train_samples)
        if validation and whole.validation_samples:
            raise ValueError(
                f"data.validation: got {config.validation:g}, allowed: 0, since the data have a validation part"
            )
        kept_back = config.calibration_samples + validation
        if kept_back >= whole.train_samples:
            key = "data.calibration_samples" + (" and data.validation" if validation else "")
            raise ValueError(f"{key}: got {kept_back}, allowed: below {whole.train_samples}")
        fingerprint = whole.fingerprint
        if config.order != "shuffled":
            ranks = read_difficulties(config, whole.train_samples)
            fingerprint += f" {hashlib.sha256(ranks.numpy().tobytes()).hexdigest()}"
        return replace(
            whole,
            fingerprint=fingerprint,
            train_samples=whole.train_samples - kept_back,
            validation_samples=validation or whole.validation_samples,
            mean=_per_channel("mean", config.mean, whole.mean),
            std=_per_channel("std", config.std, whole.std),
        )


def _per_channel(key: str, given: tuple[float, ...], own: tuple[float, ...]) -> tuple[float, ...]:
    if given and len(given) != len(own):
        raise ValueError(f"data.{key}: got {len(given)} numbers, allowed: {len(own)}, one per channel")
    return given or own


def _check_batches(config: DataConfig, train_samples: int) -> None:
    if config.batch_size > train_samples:
        raise ValueError(f"data.batch_size={config.batch_size} exceeds the training set; allowed: 2 to {train_samples}")
    if train_samples % config.batch_size == 1 and not config.drop_last:
        raise ValueError(
            f"data.batch_size={config.batch_size} leaves 1 of {train_samples} samples for the last batch and "
            "batch normalisation needs 2: set data.drop_last=true or another batch size"
        )


def require_torchvision(module: str) -> ModuleType:
    """Imports e.g. "torchvision.datasets".

    Raises:
        ValueError: It is not installed, or was built for another torch than the one installed.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: operator torchvision::nms does not exist
        cause = str(error).partition("\n")[0]
        raise ValueError(
            f"cannot import {module} ({cause}): install torch and torchvision from the same index, "
            "`pip install --force-reinstall torch torchvision`"
        ) from error
