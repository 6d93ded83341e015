"""Image folders as they are listed: classes, and the files of each part, of which none is opened."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from greedypipe.workers.data.folder_layout import TEST, TRAIN, VALIDATION, class_folders, few_classes, parts_of, unsplit
from greedypipe.workers.data.folder_walk import EXTENSIONS, FoundImage, Walk, is_image_name, visible
from greedypipe.workers.output import printable, some

Images = Mapping[str, list[FoundImage]]
"""Of a part, by class; a class without images may be missing."""


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """One part of an image folder, listed but not opened.

    Attributes:
        names: Bytes [N], relative to `folder`. Arrays, not lists of strings: a million samples travel to every loader
            process.
        labels: int64 [N].
        digest: Of names, sizes in bytes and labels: other files have another one.
    """

    folder: Path
    names: np.ndarray
    labels: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Full path of a sample."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))


@dataclass(frozen=True, eq=False)
class Listing:
    """An image folder.

    Attributes:
        classes: Names, sorted; labels are positions in them, in all parts.
        validation: Of its own; None where it has none.
        notes: What a user should know of it, in lines.
    """

    classes: tuple[str, ...]
    train: FolderSplit
    test: FolderSplit
    validation: FolderSplit | None
    notes: tuple[str, ...]

    @property
    def untested(self) -> list[str]:
        """Classes that have no image to be tested on."""
        present = set(self.test.labels.tolist())
        return [name for label, name in enumerate(self.classes) if label not in present]

    @property
    def parts(self) -> list[FolderSplit]:
        """All of them."""
        return [self.train, self.test, *([self.validation] if self.validation else [])]


def list_folder(root: str, test_share: float = 0.0) -> Listing:
    """Lists a folder that holds train/ and test/ (or val/, which is a validation part where there are both).

    Args:
        test_share: Of every class, to be held out of a folder without such parts: one that holds the class folders
            themselves, or train/ alone. Which images these are follows from their names.

    Raises:
        ValueError: One line: the layout is another one, a class has no image, train/ lacks a class of another part, or
            something in the folder can be neither read nor left out (see `folder_walk`).
    """
    folder = Path(root)
    parts = parts_of(folder)
    is_split = TRAIN in parts and (TEST in parts or VALIDATION in parts)
    if is_split and test_share:
        raise ValueError(f"data.test_share: got {test_share:g}, allowed: 0: {printable(folder)} has a part to test on")
    if not is_split and not (test_share and not parts.keys() - {TRAIN}):
        raise unsplit(folder, parts)
    trained = parts.get(TRAIN, folder)
    lister = _Lister(Walk(folder), _class_names(trained))
    whole, validation = lister.images(trained), None
    if is_split:
        train = lister.split(trained, whole)
        held_out = [lister.split(parts[part], lister.images(parts[part])) for part in (TEST, VALIDATION) if part in parts]
        test, validation = held_out[0], held_out[1] if held_out[1:] else None
    else:
        train, test = (lister.split(trained, part) for part in _hold_out(whole, test_share))
    return Listing(lister.classes, train, test, validation, tuple(lister.notes()))


def list_held_out(root: str, classes: Sequence[str]) -> tuple[FolderSplit, tuple[str, ...]]:
    """Lists what a trained network is to be tested on: test/, or else val/, or else the class folders in the folder itself.

    Args:
        classes: The network's; labels are positions in them.

    Returns:
        The part, and what a user should know of it, in lines.

    Raises:
        ValueError: See `list_folder`; also for a class that the network does not know.
    """
    folder = Path(root)
    parts = parts_of(folder)
    place = parts.get(TEST) or parts.get(VALIDATION) or folder
    lister = _Lister(Walk(folder), tuple(classes))
    split = lister.split(place, lister.images(place))
    return split, tuple(lister.notes())


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(class_folders(folder))
    if len(names) < 2:
        raise few_classes(folder)
    return names


class _Lister:
    """Lists the parts of one folder with one meaning of labels: positions in `classes`."""

    def __init__(self, walk: Walk, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._walk = walk
        self._loose: list[str] = []

    def images(self, folder: Path) -> Images:
        """The images in the class folders of one part.

        Raises:
            ValueError: There are none, or there is a class that is none of `classes`.
        """
        folders = class_folders(folder)
        if unknown := sorted(folders.keys() - set(self.classes)):
            known = some(self.classes)
            raise ValueError(f"{printable(folder)} has class folders besides the known classes {known}: {some(unknown)}")
        if not folders:
            raise ValueError(f"{printable(folder)} holds no class folder with images")
        if folder != self._walk.root:
            self._walk.enter(os.fspath(folder))
        found = {name: self._walk.images(path) for name, path in folders.items()}
        for name, images in found.items():
            if not images:
                where = printable(folders[name])
                raise ValueError(f"class folder {where} holds no image; allowed: {' '.join(EXTENSIONS)}")
        self._loose += [entry.path for entry in visible(folder) if is_image_name(entry.name)]
        return found

    def split(self, folder: Path, images: Images) -> FolderSplit:
        """One part, of its images."""
        prefix, found = len(os.path.join(folder, "")), [images.get(name, []) for name in self.classes]
        names = [os.fsencode(image.path[prefix:]) for of_class in found for image in of_class]
        labels = np.repeat(np.arange(len(found)), [len(of_class) for of_class in found])
        sizes = np.array([image.size_bytes for of_class in found for image in of_class], dtype=np.int64)
        digest = hashlib.sha256(b"\0".join(names) + sizes.tobytes() + labels.tobytes()).hexdigest()
        return FolderSplit(folder, np.array(names, dtype=np.bytes_), labels, digest)

    def notes(self) -> Iterator[str]:
        """What a user should know of what was listed."""
        yield from self._walk.notes()
        if self._loose:
            yield f"left out, outside class folders: {len(self._loose)}, e.g. {printable(self._loose[0])}"


def _hold_out(images: Images, share: float) -> tuple[Images, Images]:
    """Training and test images, of every class at least one for training. An image stays on its side when others come."""
    train: dict[str, list[FoundImage]] = {}
    test: dict[str, list[FoundImage]] = {}
    for name, found in images.items():
        drawn = sorted(found, key=lambda image: hashlib.sha256(os.fsencode(os.path.basename(image.path))).digest())
        chosen = {image.path for image in drawn[: min(max(1, round(share * len(found))), len(found) - 1)]}
        train[name] = [image for image in found if image.path not in chosen]
        test[name] = [image for image in found if image.path in chosen]
    return train, test
