"""The end of a process that cannot be kept."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

LAST_WORDS_S = 2.0
"""How long one last thing may take."""


def leave(code: int, *last: Callable[[], object]) -> NoReturn:
    """Ends this process at once, whatever its threads are waiting for.

    Nothing can keep it: neither a pipe that nobody reads, nor the lock of a thread that stands still, nor a disk that hangs,
    nor an error.

    Args:
        last: What is done before, one after the other, each for LAST_WORDS_S at most.
    """
    try:
        for one in (*last, sys.stdout.flush, sys.stderr.flush):
            thread = threading.Thread(target=_attempt, args=(one,), daemon=True)
            thread.start()
            thread.join(LAST_WORDS_S)
    finally:
        os._exit(code)


def say(text: str) -> None:
    """Prints to standard error, where there is something to say."""
    if text:
        print(text, file=sys.stderr, flush=True)


def _attempt(one: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        one()
