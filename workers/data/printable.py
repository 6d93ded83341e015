"""Names of files as they may be shown: in one line, and in characters that any terminal takes."""

import os
from collections.abc import Sequence


def printable(name: str | os.PathLike[str]) -> str:
    """A name with control characters, line ends and undecodable bytes as escapes: ``b\\x1b[31m``, ``b\\udcff``."""
    text = os.fspath(name)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, as they may be shown, and how many more there are."""
    shown = ", ".join(map(printable, names[:most]))
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
