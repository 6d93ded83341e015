"""The idx files of MNIST and its relatives."""

import gzip
from pathlib import Path
from typing import Final

import numpy as np

# uint8 [N, C, H, W] and int64 [N]
LabelledArrays = tuple[np.ndarray, np.ndarray]

_PREFIXES: Final = ("train", "t10k")
_UNSIGNED_BYTE: Final = 8


def has_idx_files(folder: Path) -> bool:
    """Whether a folder has all four of train-* and t10k-*, images and labels, plain or gzipped."""
    return all(_idx_files(folder))


def _idx_files(folder: Path) -> list[Path | None]:
    stems = [f"{prefix}-{part}-ubyte" for prefix in _PREFIXES for part in ("images-idx3", "labels-idx1")]
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
