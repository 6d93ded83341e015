"""Where the parts of an image folder lie, and what is wrong with one in which they are not found."""

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from greedypipe.workers.data.folder_walk import folders_in, is_image_name, visible
from greedypipe.workers.output import printable, some

TRAIN: Final = "train"
TEST: Final = "test"
VALIDATION: Final = "validation"
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    TRAIN: ("train",),
    TEST: ("test",),
    VALIDATION: ("val", "valid", "validation"),
}


def parts_of(folder: Path) -> dict[str, Path]:
    """The parts that a folder has, by TRAIN, TEST and VALIDATION.

    Raises:
        ValueError: It is no folder, or cannot be listed.
    """
    if not folder.is_dir():
        raise ValueError(f"data.root={printable(folder)} is no folder; {_layout(folder)}")
    present = set(folders_in(folder))
    found = {part: [folder / name for name in names if name in present] for part, names in _NAMES.items()}
    return {part: paths[0] for part, paths in found.items() if paths}


def class_folders(folder: Path) -> dict[str, str]:
    """The class folders in a folder: their paths by class name, sorted by name.

    A class name is valid Unicode in its composed form, whatever bytes the file system has for it: archives made on a Mac
    spell accents as two characters.

    Raises:
        ValueError: Two of them have one name.
    """
    found: dict[str, str] = {}
    for name in folders_in(folder):
        spelt = os.fsencode(name).decode("utf-8", "backslashreplace")
        known, path = unicodedata.normalize("NFC", spelt), os.path.join(folder, name)
        if known in found:
            raise ValueError(f"{printable(found[known])} and {printable(path)} are one class by name: rename one")
        found[known] = path
    return dict(sorted(found.items()))


def unsplit(folder: Path, parts: Mapping[str, Path]) -> ValueError:
    """The error that a folder lacks train/ or test/, with what may have been meant."""
    got = some([entry.name for entry in visible(folder)]) or "nothing"
    inside = [name for name in folders_in(folder) if TRAIN in parts_of(folder / name)]
    if len(inside) == 1:
        hint = f"did you mean data.root={printable(folder / inside[0])}?"
    elif folder.name in (*_NAMES[TRAIN], *_NAMES[TEST], *_NAMES[VALIDATION]) and TRAIN in parts_of(folder.parent):
        hint = f"did you mean data.root={printable(folder.parent)}?"
    elif _holds_classes(parts.get(TRAIN, folder)):
        hint = "data.test_share=0.2 would hold out a fifth of every class"
    else:
        hint = _layout(folder)
    return ValueError(f"data.root={printable(folder)} holds {got}, not train/ and test/ (or val/); {hint}")


def few_classes(folder: Path) -> ValueError:
    """The error that a folder holds fewer than two class folders, with what may have been meant."""
    names = list(class_folders(folder).values())
    inside = folders_in(names[0]) if len(names) == 1 else []
    deep = f"; is it one folder too deep? {printable(names[0])} holds {some(inside)}" if inside[1:] else ""
    got = f"only the class folder {printable(os.path.basename(names[0]))}" if names else "no class folder"
    return ValueError(f"{printable(folder)} holds {got}, allowed: two classes or more{deep}")


def _holds_classes(folder: Path) -> bool:
    def has_image(name: str) -> bool:
        return any(is_image_name(entry.name) for entry in visible(folder / name))

    return sum(map(has_image, folders_in(folder))) > 1


def _layout(folder: Path) -> str:
    place = printable(folder)
    return (
        f"image_folder needs {place}/train/CLASS/*.jpg and {place}/test/CLASS/*.jpg (or val/): "
        f"e.g. `mkdir -p {place} && tar -xf ARCHIVE -C {place}`, or set data.root"
    )
