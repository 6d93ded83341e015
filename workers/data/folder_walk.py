"""Which files below a folder are images: hidden ones are left out, and nothing is walked twice."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from greedypipe.workers.output import printable

EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
UNREAD: Final = frozenset(
    (".gif", ".jfif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".tga", ".dng", ".raw", ".dcm", ".npy")
)
"""Images of kinds that are not read: whoever has such files should know."""
_SYSTEMS_OWN: Final = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))


@dataclass(frozen=True)
class FoundImage:
    """An image file: its path, and its size in bytes."""

    path: str
    size_bytes: int


def visible(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without hidden entries and what operating systems put there for themselves.

    Raises:
        ValueError: It cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _SYSTEMS_OWN]
    except OSError as error:
        raise ValueError(f"cannot list {printable(folder)}: {error.strerror}") from None
    return sorted(found, key=lambda entry: entry.name)


def folders_in(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the visible folders in a folder; a link to a folder is one."""
    return [entry.name for entry in visible(folder) if stat.S_ISDIR(_mode(entry))]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is read."""
    return name.lower().endswith(EXTENSIONS)


class Walk:
    """Finds the images below folders, of which none may be reached twice: its images would have two labels, or one part of
    the data would hold what another one holds.

    Args:
        root: The folder above all of them.

    Attributes:
        root: That folder.
        left_out: Files of UNREAD kinds so far, by extension.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # A link that leads to a folder above would lead through the whole disk.
        above = [root.resolve(), *root.resolve().parents]
        self._entered = {key: os.fspath(one) for one in above if (key := _identity(os.fspath(one)))}
        self.left_out: Counter[str] = Counter()

    def enter(self, folder: str) -> None:
        """Notes that a folder is walked.

        Raises:
            ValueError: It is another one by a second name, through a link.
        """
        key = _identity(folder)
        if key and key in self._entered:
            raise ValueError(
                f"{printable(folder)} is a link to {printable(self._entered[key])}, whose images would count twice: "
                "remove the link"
            )
        if key:
            self._entered[key] = folder

    def images(self, folder: str) -> list[FoundImage]:
        """The images of a folder and of those in it, in the order of torchvision's ImageFolder.

        Raises:
            ValueError: A folder cannot be listed or is reached twice, or what has an image's name is no file.
        """
        pending, found = [folder], dict[str, list[FoundImage]]()
        while pending:
            here = pending.pop()
            self.enter(here)
            found[here] = []
            for entry in visible(here):
                mode = _mode(entry)
                if stat.S_ISDIR(mode):
                    pending.append(entry.path)
                elif is_image_name(entry.name):
                    found[here].append(FoundImage(entry.path, _size_of_file(entry, mode)))
                elif (extension := os.path.splitext(entry.name)[1].lower()) in UNREAD:
                    self.left_out[extension] += 1
        return [image for _, images in sorted(found.items()) for image in images]

    def notes(self) -> Iterator[str]:
        """What was left out, for the user."""
        if self.left_out:
            yield f"left out: {', '.join(f'{count} x {kind}' for kind, count in sorted(self.left_out.items()))}, not read"


def _mode(entry: os.DirEntry[str]) -> int:
    """0 for a link to nothing, or to itself."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def _size_of_file(entry: os.DirEntry[str], mode: int) -> int:
    if not stat.S_ISREG(mode):
        what = "a device, pipe or socket" if mode else "a link to nothing"
        raise ValueError(f"{printable(entry.path)} is {what}, allowed: files that are images")
    return entry.stat().st_size


def _identity(folder: str) -> tuple[int, int] | None:
    """Device and inode; None where the file system has no inodes."""
    try:
        found = os.stat(folder)
    except OSError as error:
        raise ValueError(f"cannot open {printable(folder)}: {error.strerror}") from None
    return (found.st_dev, found.st_ino) if found.st_ino else None
