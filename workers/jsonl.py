"""Files with one JSON object per line. A killed process may leave half a line, which readers ignore."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json

from greedypipe.workers.atomic import replacing

T = TypeVar("T")


def line_of(record: object) -> str:
    """A record as one line, with its newline. Numbers that are not finite become null."""
    return to_json(record, inf_nan_mode="null").decode() + "\n"


def read_lines(path: Path, kind: TypeAdapter[T]) -> list[T]:
    """The records of a file, in order; empty if there is no file.

    Args:
        kind: Type of a line; keys that it does not have are ignored.

    Raises:
        ValueError: A complete line is not of that type.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [kind.validate_json(line) for line in lines if _is_whole(line)]


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Replaces a file's content with these records. Blocks for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.writelines(line_of(record).encode() for record in records)


def _is_whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
