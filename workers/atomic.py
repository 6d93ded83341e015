"""Files that are always whole: written under another name and renamed, so that readers see the old or the new content."""

import contextlib
import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BufferedRandom]:
    """Opens a file, also for reading, that replaces `path` when the body ends and is deleted if the body raises.

    Args:
        durable: Whether the new content must survive a crash of the host: then this blocks for the disk.

    Raises:
        OSError: The file could not be written; `path` is unchanged.
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
    """Syncs a folder: a rename survives a crash only once the folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
