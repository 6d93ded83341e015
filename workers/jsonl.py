"""Files with one JSON object per line. A killed process may leave half a line, which readers ignore."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable
from io import RawIOBase
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from greedypipe.workers.atomic import reason_of, replacing
from greedypipe.workers.validator import Validator

T = TypeVar("T")


def line_of(record: object) -> str:
    """A record as one line, with its newline. Numbers that are not finite become null."""
    return to_json(record, inf_nan_mode="null").decode() + "\n"


def read_lines(path: Path, kind: Validator[T]) -> list[T]:
    """The records of a file, in order; empty if there is no file.

    Args:
        kind: Type of a line; keys that it does not have are ignored.

    Raises:
        ValueError: A complete line is not of that type.
    """
    return [kind.validate_json(line) for line in _whole_lines(path)]


def salvage_lines(path: Path, kind: Validator[T]) -> list[T]:
    """As `read_lines`, without the lines that hold something else."""
    found = []
    for line in _whole_lines(path):
        with contextlib.suppress(ValidationError):
            found.append(kind.validate_json(line))
    return found


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Replaces a file's content with these records. Blocks for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.writelines(line_of(record).encode() for record in records)


class LinesFile:
    """A file that records are appended to, each at once and whole. A disk that refuses costs records, never the training:
    they are counted, and the path is reported once.

    A file that is there is appended to. Calls do not wait for the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: RawIOBase | None = None
        self._is_torn = False
        """Whether the file ends with half a line."""
        self.lost = 0
        """Records that could not be written."""

    def append(self, record: object) -> None:
        """Writes a record, or counts it as lost."""
        line = line_of(record).encode()
        try:
            self._write(line)
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                text = (
                    f"greedypipe: {self._path} cannot be written: {reason_of(error)}; training goes on without its records"
                )
                print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Idempotent."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, line: bytes) -> None:
        file = self._file or self._open()
        left = (b"\n" if self._is_torn else b"") + line
        while left:
            written = file.write(left) or 0
            left = left[written:]
            self._is_torn = bool(left)

    def _open(self) -> RawIOBase:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk has refused must not come again with a later record.
        self._file = self._path.open("a+b", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - 1))
        self._is_torn = self._file.read(1) not in (b"", b"\n")
        return self._file


def _whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [line for line in lines if _is_whole(line)]


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
