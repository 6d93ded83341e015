"""Calls that may block, in threads of their own, watched without sleeping for a guessed time."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

TIMEOUT_S = 10.0


class Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def result(self) -> Any:
        return self._future.result(TIMEOUT_S)

    def waits(self) -> bool:
        """Returns once the call has ended or makes no progress: whether it waits."""
        until(lambda: self._future.done() or self._stands_still())
        return not self._future.done()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:
            self._future.set_exception(error)

    def _stands_still(self) -> bool:
        """Whether the thread is at the same line five times in a row, outside of this file."""
        seen, pause = set(), threading.Event()
        for _ in range(5):
            frame = sys._current_frames().get(self._thread.ident or 0)
            if frame is None or frame.f_code.co_filename == __file__ or frame.f_code.co_name.startswith("_bootstrap"):
                return False
            seen.add((frame.f_code, frame.f_lineno))
            pause.wait(0.001)
        return len(seen) == 1


def until(condition: Callable[[], bool]) -> None:
    """Polls; the deadline is for broken code only."""
    deadline, pause = time.monotonic() + TIMEOUT_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        pause.wait(0.0005)


def is_waiting(thread: threading.Thread) -> bool:
    """Whether the thread's innermost frame is a condition's wait."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) == (threading.__file__, "wait")
