"""Standard output and error of a process of ours: what they cannot encode is printed as an escape and never an error."""

import io
import sys
from typing import TextIO


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
