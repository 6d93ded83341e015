"""A user's own arrays in one .npz file: images, signals or vectors, and their labels."""

import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field, field_validator

from greedypipe.workers.data.config import Augment, DataConfig
from greedypipe.workers.data.described import described
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.own_samples import in_memory, samples_of
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet
from greedypipe.workers.output import printable, some
from greedypipe.workers.user_path import UserPath

ARRAYS: Final = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES: Final = "classes"
"""The array of names of the classes, in the order of the labels, where a file has one."""


class ArraysConfig(DataConfig, frozen=True):
    """Your own arrays in an .npz file: images [N, C, H, W], signals [N, C, T] or vectors [N, F], and their labels [N]."""

    name: Literal["arrays"] = "arrays"
    file: UserPath = Field("data.npz", min_length=1, description="the .npz file; no pickled objects are read from it")
    keys: tuple[str, ...] = Field(
        (),
        description="names of its arrays: training samples, their labels, test samples, their labels; []: x_train, y_train, "
        "x_test, y_test",
    )
    augment: Augment = Field("none", description="random change of the training images; signals and vectors have none")

    @field_validator("keys")
    @classmethod
    def _keys_differ(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if keys and (len(keys) != len(ARRAYS) or len(set(keys)) != len(keys)):
            raise ValueError(f"got {list(keys)}, allowed: four different names")
        return keys


class Arrays(DataSet):
    """Bytes are normalised by mean and standard deviation of the training part, floating-point numbers taken as they are.

    Labels are 0 to classes - 1, each of them in the training part. An array `classes` of texts names the classes. The file
    is read whole, once by each process that asks for more than whether it is there. Its identity are the checksums that the
    archive keeps of its arrays.
    """

    Config = ArraysConfig

    def __init__(self, config: ArraysConfig) -> None:
        super().__init__(config)
        self._path = Path(config.file)
        self._key = f"data.file={printable(config.file)}"
        self._names = config.keys or ARRAYS

    def check_presence(self) -> None:
        """See `DataSet.check_presence`; reads the archive's directory alone."""
        if not self._path.is_file():
            raise ValueError(f"{self._key} is no file: write one with numpy.savez, or set data.file")
        present = self._checksums
        if missing := [name for name in self._names if name not in present]:
            raise ValueError(f"{self._key} has no array {some(missing)}; it has {some(list(present))}: set data.keys")

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`; reads the whole file."""
        self.check_presence()
        train, test = self._parts
        known = (name for name in (*self._names, CLASS_NAMES) if name in self._checksums)
        return described(train, test, self._key, " ".join(f"{self._checksums[name]:08x}" for name in known))

    def load(self) -> tuple[InMemoryImages, InMemoryImages]:
        """See `DataSet.load`."""
        self.check_presence()
        return self._parts

    @cached_property
    def _checksums(self) -> dict[str, int]:
        """CRC-32 by name of an array."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                return {one.filename.removesuffix(".npy"): one.CRC for one in archive.infolist()}
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{self._key} is no .npz file ({error}): write it with numpy.savez") from None

    @cached_property
    def _parts(self) -> tuple[InMemoryImages, InMemoryImages]:
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in (*self._names, CLASS_NAMES) if name in archive}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            cause = str(error).partition("\n")[0]
            raise ValueError(f"{self._key} cannot be read ({cause}): it must hold plain arrays, no objects") from None
        train, test = (self._part(arrays, first) for first in (0, 2))
        train.classes = _texts(arrays.get(CLASS_NAMES), f"{self._key}: {CLASS_NAMES}", int(train.labels.max()) + 1)
        return train, test

    def _part(self, arrays: dict[str, Any], first: int) -> InMemoryImages:
        samples, labels = self._names[first : first + 2]
        name = f"{self._key}: {samples}"
        return in_memory(samples_of(arrays[samples], name), arrays[labels], name)


def _texts(names: np.ndarray | None, key: str, count: int) -> tuple[str, ...]:
    """Names of classes; () where none are given."""
    if names is None:
        return ()
    if names.dtype.kind != "U" or names.shape != (count,) or len(set(names.tolist())) != count:
        got = f"{names.dtype} {list(names.shape)}"
        raise ValueError(f"{key}: got {got}, allowed: {count} different texts, one per class")
    return tuple(names.tolist())
