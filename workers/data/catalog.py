"""What every process must know of a data set before anyone has loaded it, and whether it can be loaded."""

import importlib.util
from dataclasses import dataclass, replace
from typing import Final

from greedypipe.workers.data.archives import check_archive, require_torchvision
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.image_folder import fits_in_memory, list_splits, sample_shape
from greedypipe.workers.data.images import NUM_DIGITS, NUM_HELD_OUT_DIGITS


@dataclass(frozen=True)
class DataInfo:
    """Shape and size of a data set; `mean` and `std` are per channel, of pixels scaled to [0, 1].

    `train_samples` are those that are trained on, without `data.calibration_samples`.
    """

    input_shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    train_samples: int
    test_samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_CIFAR10_MEAN: Final = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD: Final = (0.2023, 0.1994, 0.2010)
_PUBLISHED: Final = {
    "digits": DataInfo((1, 8, 8), 10, NUM_DIGITS - NUM_HELD_OUT_DIGITS, NUM_HELD_OUT_DIGITS, (0.2874,), (0.3540,)),
    "mnist": DataInfo((1, 28, 28), 10, 60_000, 10_000, (0.1307,), (0.3081,)),
    "fashion_mnist": DataInfo((1, 28, 28), 10, 60_000, 10_000, (0.2860,), (0.3530,)),
    "cifar10": DataInfo((3, 32, 32), 10, 50_000, 10_000, _CIFAR10_MEAN, _CIFAR10_STD),
    "cifar100": DataInfo((3, 32, 32), 100, 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def describe(config: DataConfig) -> DataInfo:
    """Tells shape, classes and sizes; cheap enough for every process to call it.

    Decodes and downloads nothing. For an image folder it lists the directories and reads one image header.

    Raises:
        ValueError: The image folder is missing or malformed, or nothing is left to train on.
    """
    info = _describe_whole(config)
    left = info.train_samples - config.calibration_samples
    if left < 1:
        raise ValueError(f"data.calibration_samples: got {config.calibration_samples}, allowed: below {info.train_samples}")
    return replace(info, train_samples=left)


def _describe_whole(config: DataConfig) -> DataInfo:
    match config.name:
        case "image_folder":
            return _describe_folder(config)
        case "synthetic":
            channels, height, width = config.shape
            shape = (channels, height, width)
            mean, std = (0.5,) * channels, (0.25,) * channels
            return DataInfo(shape, config.classes, config.samples, config.samples // 5, mean, std)
        case _:
            return _PUBLISHED[config.name]


def _describe_folder(config: DataConfig) -> DataInfo:
    classes, train, test = list_splits(config.root)
    shape = sample_shape(train, config.image_size)
    mean, std = _folder_normalisation(shape)
    return DataInfo(shape, len(classes), len(train), len(test), mean, std)


def _folder_normalisation(shape: tuple[int, int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if shape == (3, 32, 32):
        return _CIFAR10_MEAN, _CIFAR10_STD
    if shape[0] == 1:
        return (0.449,), (0.226,)  # ImageNet turned grey
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet


def check(config: DataConfig) -> DataInfo:
    """Finds what would stop or spoil a training run on this data; quick, for one process before it starts.

    Returns:
        What `describe` says of the data, so that nobody needs to ask again.

    Raises:
        ValueError: One line: the data are missing (with the command that gets them), a library is missing,
            the folder is malformed, or the batch size does not suit the number of training samples.
    """
    match config.name:
        case "digits":
            if importlib.util.find_spec("sklearn") is None:
                raise ValueError("data.name=digits needs scikit-learn: `pip install scikit-learn`")
        case "cifar10" | "cifar100" | "mnist" | "fashion_mnist":
            check_archive(config)
        case _:
            pass
    info = describe(config)
    _check_batches(config, info.train_samples)
    num_samples = info.train_samples + info.test_samples
    in_memory = fits_in_memory(num_samples, info.input_shape, config.memory_limit_mb)
    if config.name == "image_folder" and config.augment != "none" and not in_memory:
        require_torchvision("torchvision.transforms.v2")
    return info


def _check_batches(config: DataConfig, train_samples: int) -> None:
    if config.batch_size > train_samples:
        raise ValueError(f"data.batch_size={config.batch_size} exceeds the training set; allowed: 2 to {train_samples}")
    if train_samples % config.batch_size == 1 and not config.drop_last:
        raise ValueError(
            f"data.batch_size={config.batch_size} leaves 1 of {train_samples} samples for the last batch and "
            "batch normalisation needs 2: set data.drop_last=true or another batch size"
        )
