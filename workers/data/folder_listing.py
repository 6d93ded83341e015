"""Image folders: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/), ordered like torchvision ImageFolder."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

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
    folder = Path(root)
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
