"""Files that are always whole: written aside and renamed, so that whoever reads sees the old content or the new one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file, readable too, that takes the place of `path` when the body ends, and is gone when the body raises.

    Args:
        durable: Whether the new content must survive a crash of the host: blocks for the disk then.

    Raises:
        OSError: The disk refuses; `path` is as it was.
    """
    aside = path.with_name(f"{path.name}.partial")
    try:
        with aside.open("w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        aside.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a file's content, UTF-8. See `replacing`."""
    with replacing(path, durable=durable) as file:
        file.write(text.encode())


def _sync(folder: Path) -> None:
    """A renamed file is safe only when its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
