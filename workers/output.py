"""What a process of ours prints: what a terminal would obey, or cannot encode, is spelt out as an escape."""

import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

_OBEYED = [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
"""Control characters, line ends, marks that turn the direction of writing around, and halves of characters."""
_IN_A_LINE = {code: ascii(chr(code))[1:-1] for code in _OBEYED}
_IN_A_TEXT = {code: escape for code, escape in _IN_A_LINE.items() if chr(code) not in "\n\t"}


def shown(text: object) -> str:
    """A text for a terminal: characters that a terminal would obey rather than show are spelt out, ``\\x1b``.

    Line ends and tabs stay. Names of files, classes and layers, and whatever another process has written, come through here.
    """
    return str(text).translate(_IN_A_TEXT)


def printable(name: str | os.PathLike[str]) -> str:
    """A name for a message of one line: as `shown`, line ends and tabs included: ``b\\n``, ``b\\udcff``."""
    return os.fspath(name).translate(_IN_A_LINE)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, each as `printable`, and how many more there are."""
    first = ", ".join(map(printable, names[:most]))
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first


def escape_what_cannot_be_encoded() -> None:
    """Has this process's standard output and error print `\\xe4` where their encoding has no ä; idempotent.

    For commands and ranks: a folder's or a class's name must not end a run on a terminal of another language.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def encodable(text: str, stream: TextIO) -> str:
    """The text as `stream` can print it, for a stream that is somebody else's."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
