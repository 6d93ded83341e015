"""Image folders: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/), ordered like torchvision ImageFolder."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """One half of an image folder, listed but not opened."""

    folder: Path
    # Arrays of bytes and numbers, not lists of strings: a million samples travel to every loader process.
    names: np.ndarray  # bytes [N], relative to `folder`
    labels: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Full path of a sample."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))


def list_splits(root: str) -> tuple[list[str], FolderSplit, FolderSplit]:
    """Lists classes (sorted), training part and held-out part: test/ if there is one, else val/.

    Labels are positions in the sorted classes of train/, in both parts. Opens no image.

    Raises:
        ValueError: A folder is missing, a class has no image, or train/ lacks a class of the held-out part.
    """
    folder = Path(root).expanduser()
    layout = f"image_folder needs {folder}/train/CLASS/*.jpg and {folder}/test/CLASS/*.jpg (or val/)"
    command = f"e.g. `mkdir -p {folder} && tar -xf ARCHIVE -C {folder}`, or set data.root"
    if not folder.is_dir():
        raise ValueError(f"data.root={root} is no folder; {layout}: {command}")
    held_out = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if held_out is None or not (folder / "train").is_dir():
        got = ", ".join(sorted(entry.name for entry in os.scandir(folder))[:5]) or "nothing"
        raise ValueError(f"data.root={root} holds {got}; {layout}: {command}")
    classes = _class_names(folder / "train")
    if not classes:
        raise ValueError(f"{folder}/train holds no class folder; {layout}: {command}")
    unknown = sorted(set(_class_names(held_out)) - set(classes))
    if unknown:
        raise ValueError(f"{held_out} has class folders that {folder}/train lacks: {', '.join(unknown[:5])}")
    return classes, _list_split(folder / "train", classes), _list_split(held_out, classes)


def _class_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _list_split(folder: Path, classes: list[str]) -> FolderSplit:
    prefix = len(os.path.join(folder, ""))
    names: list[bytes] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        class_folder = folder / class_name
        if not class_folder.is_dir():
            continue  # a held-out part need not have every class
        found = [
            os.fsencode(os.path.join(where[prefix:], name))
            for where, _, files in sorted(os.walk(class_folder, followlinks=True))
            for name in sorted(files)
            if name.lower().endswith(EXTENSIONS)
        ]
        if not found:
            raise ValueError(f"class folder {class_folder} holds no image; allowed: {' '.join(EXTENSIONS)}")
        names += found
        labels += [label] * len(found)
    if not names:
        raise ValueError(f"{folder} holds no class folder with images")
    return FolderSplit(folder, np.array(names, dtype=np.bytes_), np.array(labels, dtype=np.int64))


def sample_shape(split: FolderSplit, image_size: int) -> tuple[int, int, int]:
    """Channels, height and width of every sample, read from the header of the first image.

    One channel if that image is grey (mode L), else three. `image_size` 0 keeps the size of the first image.
    """
    path = split.path(0)
    try:
        with Image.open(path) as image:
            (width, height), mode = image.size, image.mode
    except (OSError, SyntaxError) as error:  # SyntaxError: a damaged PNG
        raise ValueError(f"cannot read the image {path}: {error}") from error
    channels = 1 if mode == "L" else 3
    return (channels, image_size, image_size) if image_size else (channels, height, width)


def fits_in_memory(num_samples: int, shape: tuple[int, int, int], limit_mb: int) -> bool:
    """Whether so many decoded samples take at most `limit_mb` MiB."""
    channels, height, width = shape
    return num_samples * channels * height * width <= limit_mb * 2**20


class FolderImages:
    """Images that stay compressed on disk; each read decodes them. Picklable, for loader processes."""

    def __init__(self, split: FolderSplit, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes samples: uint8 [rows, C, H, W] and int64 [rows]; other sizes are resized and cropped."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in enumerate(indices.tolist()):
            images[row] = channels_first(fit(self.decode(index), *self.shape[1:]))
        return torch.from_numpy(images), self.labels(indices)

    def labels(self, indices: Tensor) -> Tensor:
        """Classes of samples, int64 [rows]."""
        return torch.from_numpy(self._split.labels[indices.numpy()])

    def decode(self, index: int) -> Image.Image:
        """Reads one image in its own size, mode L or RGB.

        Raises:
            ValueError: The file is no readable image.
        """
        path = self._split.path(index)
        try:
            with Image.open(path) as image:
                return image.convert("L" if self.shape[0] == 1 else "RGB")
        except (OSError, SyntaxError) as error:
            raise ValueError(f"cannot decode the image {path}: {error}") from error


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Shrinks or enlarges an image until it just covers height x width, then cuts out the centre."""
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.resize(covering, Image.Resampling.BILINEAR)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))


def channels_first(image: Image.Image) -> np.ndarray:
    """Pixels of a grey or RGB image as uint8 [C, H, W] (a view, not contiguous)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
