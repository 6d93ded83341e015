"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: where their files lie and how they are read."""

import gzip
import importlib
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from greedypipe.workers.data.config import DataConfig

DEBIAN_FASHION_MNIST: Final = Path("/usr/share/datasets/fashion-mnist")

# uint8 [N, C, H, W] and int64 [N]
LabelledArrays = tuple[np.ndarray, np.ndarray]

_IDX_PREFIXES: Final = ("train", "t10k")
_UNSIGNED_BYTE: Final = 8
_TORCHVISION_NAMES: Final = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
_CIFAR_FILES: Final = {
    "cifar10": (
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": ("cifar-100-python", ("train", "test", "meta")),
}


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


def check_archive(config: DataConfig) -> None:
    """Raises ValueError in one line when the files are missing and may not be, or cannot be, downloaded.

    Looks at names only; reads and downloads nothing.
    """
    is_idx = config.name in ("mnist", "fashion_mnist")
    folder = find_idx_folder(config) if is_idx else _find_cifar_folder(config)
    if folder is None and not config.download:
        place = f"{config.root}/{_TORCHVISION_NAMES[config.name]}/raw" if is_idx else _cifar_folder(config)
        package = f" nor in {DEBIAN_FASHION_MNIST} (`apt-get install dataset-fashion-mnist`)"
        raise ValueError(
            f"{config.name} is not in {place}{package if config.name == 'fashion_mnist' else ''}: "
            "set data.download=true or point data.root to it"
        )
    if folder is None or not is_idx:
        require_torchvision("torchvision.datasets")


def load_archive(config: DataConfig) -> tuple[LabelledArrays, LabelledArrays]:
    """Reads training and held-out part, after a download to `config.root` where files are missing.

    Files already present are preferred. Only one process at a time may download into a folder.

    Raises:
        ValueError: Files are missing and `download` is off, or they are damaged.
        ConnectionError: The download failed.
    """
    check_archive(config)
    if config.name in _CIFAR_FILES:
        if _find_cifar_folder(config) is None:
            _download(config)
        return _read_cifar(config, is_training=True), _read_cifar(config, is_training=False)
    folder = find_idx_folder(config)
    if folder is None:
        _download(config)
        folder = find_idx_folder(config)
        assert folder is not None, "torchvision downloaded to another folder"
    return read_idx_folder(folder)


def _download(config: DataConfig) -> None:
    datasets = require_torchvision("torchvision.datasets")
    try:
        getattr(datasets, _TORCHVISION_NAMES[config.name])(config.root, download=True)
    except (OSError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise ConnectionError(
            f"could not download {config.name} to {config.root} ({cause}): "
            "put the files there by hand and set data.download=false, or choose data.name=digits"
        ) from error


def find_idx_folder(config: DataConfig) -> Path | None:
    """Folder with the four idx files of mnist or fashion_mnist, plain or gzipped; None if there is none.

    Looks where torchvision puts them, then, for fashion_mnist, where the Debian package does.
    """
    folders = [Path(config.root).expanduser() / _TORCHVISION_NAMES[config.name] / "raw"]
    if config.name == "fashion_mnist":
        folders.append(DEBIAN_FASHION_MNIST)
    return next((folder for folder in folders if all(_idx_files(folder))), None)


def _idx_files(folder: Path) -> list[Path | None]:
    stems = [f"{prefix}-{part}-ubyte" for prefix in _IDX_PREFIXES for part in ("images-idx3", "labels-idx1")]
    return [next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None) for stem in stems]


def read_idx_folder(folder: Path) -> tuple[LabelledArrays, LabelledArrays]:
    """Reads train-* and t10k-* idx files, plain or gzipped: uint8 [N, 1, H, W] and int64 [N] each."""
    paths = [path for path in _idx_files(folder) if path is not None]
    assert len(paths) == 4, f"{folder} holds {paths}"
    arrays = [_read_idx(path) for path in paths]
    parts = []
    for images, labels in (arrays[:2], arrays[2:]):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(f"{folder}: images {images.shape} and labels {labels.shape} do not belong together")
        parts.append((images[:, None], labels.astype(np.int64)))
    return parts[0], parts[1]


def _read_idx(path: Path) -> np.ndarray:
    # Header: two zero bytes, element type, number of dimensions, then each dimension as a big-endian uint32.
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and get it again") from error
    header_bytes = 4 + 4 * (content[3] if len(content) > 3 else 0)
    if content[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or len(content) < header_bytes:
        raise ValueError(f"{path} is no idx file of unsigned bytes: delete it and get it again")
    shape = tuple(np.frombuffer(content, ">u4", count=content[3], offset=4).tolist())
    if len(content) - header_bytes != int(np.prod(shape)):
        raise ValueError(f"{path} holds {len(content) - header_bytes} values, its header says {shape}: get it again")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _cifar_folder(config: DataConfig) -> Path:
    return Path(config.root).expanduser() / _CIFAR_FILES[config.name][0]


def _find_cifar_folder(config: DataConfig) -> Path | None:
    folder = _cifar_folder(config)
    return folder if all((folder / name).is_file() for name in _CIFAR_FILES[config.name][1]) else None


def _read_cifar(config: DataConfig, is_training: bool) -> LabelledArrays:
    datasets = require_torchvision("torchvision.datasets")
    try:
        part = getattr(datasets, _TORCHVISION_NAMES[config.name])(str(_cifar_folder(config).parent), train=is_training)
    except RuntimeError as error:
        raise ValueError(f"{_cifar_folder(config)} is damaged: delete it and set data.download=true") from error
    return part.data.transpose(0, 3, 1, 2), np.array(part.targets, dtype=np.int64)
