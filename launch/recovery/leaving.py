"""The end of a process that cannot be kept."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from greedypipe.workers.output import shown

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
            within(one)
    finally:
        os._exit(code)


def within(call: Callable[[], object], seconds: float = LAST_WORDS_S) -> bool:
    """Makes a call that may never return, in a thread of its own; returns whether it has ended in time."""
    thread = threading.Thread(target=_attempt, args=(call,), daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def say(text: str) -> None:
    """Prints to standard error, where there is something to say."""
    if text:
        print(shown(text), file=sys.stderr, flush=True)


def _attempt(one: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        one()
