"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: where their files lie and how they are read."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
import torch
from pydantic import Field

from greedypipe.workers.data.class_names import CIFAR10, CIFAR100, FASHION_MNIST
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.idx_files import LabelledArrays, has_idx_files, read_idx_folder
from greedypipe.workers.data.info import DataInfo, numbered
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet, require_torchvision
from greedypipe.workers.user_path import UserPath

DEBIAN_FASHION_MNIST: Final = Path("/usr/share/datasets/fashion-mnist")
CIFAR10_MEAN: Final = (0.4914, 0.4822, 0.4465)
CIFAR10_STD: Final = (0.2023, 0.1994, 0.2010)


class ArchiveConfig(DataConfig, frozen=True):
    """Published sets, downloaded by torchvision where their files are missing."""

    name: Literal["cifar10", "cifar100", "mnist", "fashion_mnist"]
    root: UserPath = Field("data", min_length=1, description="folder of the files")
    download: bool = Field(True, description="download the files that root lacks")


class Archive(DataSet):
    """A published set that torchvision can download. Files already present are preferred."""

    Config = ArchiveConfig
    info: ClassVar[DataInfo]
    torchvision_name: ClassVar[str]
    is_read_by_torchvision: ClassVar[bool] = False

    def __init__(self, config: ArchiveConfig) -> None:
        super().__init__(config)
        self._name = config.name
        self._root = Path(config.root)
        self._may_download = config.download

    @abstractmethod
    def find(self) -> Path | None:
        """Folder that has all files; None if there is none."""

    @abstractmethod
    def place(self) -> str:
        """Where the files were looked for, in words."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[LabelledArrays, LabelledArrays]:
        """Reads training and held-out part.

        Raises:
            ValueError: The files are damaged.
        """

    def check_presence(self) -> None:
        """See `DataSet.check_presence`."""
        is_present = self.find() is not None
        if not (is_present or self._may_download):
            raise ValueError(f"{self._name} is not in {self.place()}: set data.download=true or point data.root to it")
        if not is_present or self.is_read_by_torchvision:
            require_torchvision("torchvision.datasets")

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`; opens no file."""
        return self.info

    def load(self) -> tuple[InMemoryImages, InMemoryImages]:
        """See `DataSet.load`. Only one process at a time may download into a folder."""
        self.check_presence()
        folder = self.find() or self._download()
        train, test = self.read(folder)
        return _in_memory(train), _in_memory(test)

    def _download(self) -> Path:
        datasets = require_torchvision("torchvision.datasets")
        try:
            getattr(datasets, self.torchvision_name)(str(self._root), download=True)
        except (OSError, RuntimeError) as error:
            cause = str(error).partition("\n")[0]
            raise ConnectionError(
                f"could not download {self._name} to {self._root} ({cause}): "
                "put the files there by hand and set data.download=false, or choose data.name=digits"
            ) from error
        folder = self.find()
        assert folder is not None, "torchvision downloaded to another folder"
        return folder


def _in_memory(arrays: LabelledArrays) -> InMemoryImages:
    images, labels = arrays
    return InMemoryImages(torch.from_numpy(np.array(images, order="C")), torch.from_numpy(labels))


class Mnist(Archive):
    """Handwritten digits: 70,000 grey images of 28 x 28 pixels in four idx files, plain or gzipped."""

    info = DataInfo((1, 28, 28), numbered(10), 60_000, 10_000, (0.1307,), (0.3081,))
    torchvision_name = "MNIST"

    def folders(self) -> list[Path]:
        """Where the files may lie: where torchvision puts them."""
        return [self._root / self.torchvision_name / "raw"]

    def find(self) -> Path | None:
        """See `Archive.find`."""
        return next((folder for folder in self.folders() if has_idx_files(folder)), None)

    def place(self) -> str:
        """See `Archive.place`."""
        return str(self.folders()[0])

    def read(self, folder: Path) -> tuple[LabelledArrays, LabelledArrays]:
        """See `Archive.read`."""
        return read_idx_folder(folder)


class FashionMnist(Mnist):
    """Pieces of clothing in the form of MNIST; also where the Debian package puts them."""

    info = DataInfo((1, 28, 28), FASHION_MNIST, 60_000, 10_000, (0.2860,), (0.3530,))
    torchvision_name = "FashionMNIST"

    def folders(self) -> list[Path]:
        """Where torchvision puts the files, then where the Debian package does."""
        return [*super().folders(), DEBIAN_FASHION_MNIST]

    def place(self) -> str:
        """See `Archive.place`."""
        return f"{super().place()} nor in {DEBIAN_FASHION_MNIST} (`apt-get install dataset-fashion-mnist`)"


class Cifar10(Archive):
    """Small photographs: 60,000 images of 3 x 32 x 32 pixels in pickled files, which torchvision reads."""

    info = DataInfo((3, 32, 32), CIFAR10, 50_000, 10_000, CIFAR10_MEAN, CIFAR10_STD)
    torchvision_name = "CIFAR10"
    is_read_by_torchvision = True
    folder_name: ClassVar[str] = "cifar-10-batches-py"
    files: ClassVar[tuple[str, ...]] = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

    def find(self) -> Path | None:
        """See `Archive.find`."""
        folder = self._root / self.folder_name
        return folder if all((folder / name).is_file() for name in self.files) else None

    def place(self) -> str:
        """See `Archive.place`."""
        return str(self._root / self.folder_name)

    def read(self, folder: Path) -> tuple[LabelledArrays, LabelledArrays]:
        """See `Archive.read`."""
        return self._read_part(folder, is_training=True), self._read_part(folder, is_training=False)

    def _read_part(self, folder: Path, is_training: bool) -> LabelledArrays:
        datasets = require_torchvision("torchvision.datasets")
        try:
            part = getattr(datasets, self.torchvision_name)(str(folder.parent), train=is_training)
        except RuntimeError as error:
            raise ValueError(f"{folder} is damaged: delete it and set data.download=true") from error
        return part.data.transpose(0, 3, 1, 2), np.array(part.targets, dtype=np.int64)


class Cifar100(Cifar10):
    """CIFAR-10's sister with 100 classes."""

    info = DataInfo((3, 32, 32), CIFAR100, 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    torchvision_name = "CIFAR100"
    folder_name = "cifar-100-python"
    files = ("train", "test", "meta")
