"""What a failing process leaves to its user: one line, the traceback in a file, and the cause for torchrun's own report."""

import json
import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands import this before anything that takes time
    from pydantic import ValidationError

MOST_CHARACTERS = 400
"""Of a library's message: some carry a stack of C++ or a page of advice."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
FORESEEN = (ValueError, OSError, ArithmeticError)
"""What our own checks raise, whose message says everything."""


def in_one_line(error: BaseException) -> str:
    """Type and message of an error, without line breaks."""
    text = " ".join(str(error).split())
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]} ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_problem(error: "ValidationError") -> str:
    """Place and reason of the first problem with a file that another version or another program may have written."""
    found = error.errors()[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg']}" if place else found["msg"]


def with_traceback(error: BaseException, path: Path | None = None) -> str:
    """`in_one_line`, and where its traceback is, if the line alone might not do; writes that file.

    Args:
        path: File to write; None: one in the system's folder for temporary files.
    """
    line = in_one_line(error)
    try:
        found = _write("".join(traceback.format_exception(error)), path)
    except OSError:
        return line
    return line if isinstance(error, FORESEEN) else f"{line}; the traceback is in {found}"


def _write(text: str, path: Path | None) -> Path:
    if path is None:
        descriptor, name = tempfile.mkstemp(prefix="greedypipe-", suffix=".traceback")
        os.close(descriptor)
        path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def tell_torchrun(message: str) -> None:
    """Leaves the cause to torchrun's agent, which else points to a page of its manual. No-op under another launcher.

    Raises:
        OSError: The disk refuses.
    """
    if path := os.environ.get(ERROR_FILE):
        details = {"message": message, "extraInfo": {"py_callstack": message, "timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": details}), encoding="utf-8")
