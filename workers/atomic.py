"""Files that are always whole: written under another name and renamed, so that readers see the old or the new content."""

import contextlib
import os
import sys
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BufferedRandom]:
    """Opens a file, also for reading, that replaces `path` when the body ends and is deleted if the body raises.

    Args:
        durable: Whether the new content must survive a crash of the host: then this blocks for the disk.

    Raises:
        OSError: The file could not be written; names it, and `path` is unchanged.
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
    except OSError as error:
        # A write that fails does not know the name of its file.
        raise OSError(error.errno, reason_of(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a file's content, UTF-8. See `replacing`."""
    with replacing(path, durable=durable) as file:
        file.write(text.encode())


def write_record(path: Path, text: str, *, durable: bool = True) -> None:
    """As `write_atomically`, of a file that the training can do without: where the write fails, that is reported instead."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, durable=durable)
    except OSError as error:
        print(f"greedypipe: {path} cannot be written: {reason_of(error)}", file=sys.stderr, flush=True)


def reason_of(error: OSError) -> str:
    """Why a file operation failed, without the path."""
    return error.strerror or str(error) or type(error).__name__


def _sync(folder: Path) -> None:
    """Syncs a folder: a rename survives a crash only once the folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
