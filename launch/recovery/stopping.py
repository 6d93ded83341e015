"""Being told to stop: what a run makes of the signals by which a terminal or a scheduler ends it.

| signal                                | what it does                                                             |
|---------------------------------------|--------------------------------------------------------------------------|
| the first one of STOP_SIGNALS         | the run saves itself and ends; before training has begun, it only ends   |
| more of them in the AGAIN_S behind it | nothing: schedulers signal every process, and launchers pass it on       |
| one later than that                   | the run ends at once                                                     |

To any process of the run; a signal that `nohup` has the run ignore stays ignored.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Self

from greedypipe.launch.recovery.exit_codes import FAILED, INTERRUPTED, REQUEUE
from greedypipe.launch.recovery.leaving import leave, say
from greedypipe.workers.lifeline import STOP_SIGNALS, look_after_agent
from greedypipe.workers.telemetry.records import Cause

AGAIN_S = 3.0
LOOK_S = 0.25
ALONE_S = 1.0
"""How long a process that is told to stop waits for its supervisor, who can tell the others and name what has happened."""
AT_ONCE_S = 3.0
"""How long a supervisor may take to end a process at once."""

Handler = Callable[[int, FrameType | None], None]


class StopRequest:
    """What the signals that have come so far ask for.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._again: float | None = None
        self.signal = ""
        """Name of the newest signal that counted."""

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Notes a signal; may be installed as its handler."""
        now = self._clock()
        if self._first is None:
            self._first = now
        elif self._again is None and now - self._first >= AGAIN_S:
            self._again = now
        else:
            return
        self.signal = signal.Signals(number).name

    @property
    def is_made(self) -> bool:
        """Whether the run is to save itself and end."""
        return self._first is not None

    @property
    def is_urgent(self) -> bool:
        """Whether it is to end at once."""
        return self._again is not None

    def is_unanswered(self, patience_s: float) -> bool:
        """Whether the process is still here so long after the first signal."""
        return self._first is not None and self._clock() - self._first > patience_s

    def is_urgently_unanswered(self, patience_s: float) -> bool:
        """Whether the process is still here so long after it was to end at once."""
        return self._again is not None and self._clock() - self._again > patience_s


@contextlib.contextmanager
def hearing(handler: Handler) -> Iterator[None]:
    """Has the main thread call `handler` at STOP_SIGNALS, also at those that have been blocked so far (workers.lifeline).

    Does nothing in another thread, which cannot set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = {number for number in STOP_SIGNALS if not _is_ignored_by_nohup(number)}
    before = {number: signal.signal(number, handler) for number in heard}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, earlier in before.items():
            signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)


class RankSignals:
    """Hears the signals in a process that does a rank's work, in a thread: its main thread may wait in C++ for long.

    As long as no supervisor has taken over, it also ends the process when it is told to, and when its launcher is gone.
    Enter it in the main thread.

    Args:
        speaks: Whether this process is the one of its run that says so.
    """

    def __init__(self, speaks: bool) -> None:
        self.request = StopRequest()
        self._speaks = speaks
        self._launcher = os.getppid()
        look_after_agent()
        self._is_supervised = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._open.callback(os.close, writing)
        if threading.current_thread() is threading.main_thread():
            # The kernel's handler writes the number of the signal into the pipe, whatever the main thread is doing.
            before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
            self._open.callback(signal.set_wakeup_fd, before)
        self._open.enter_context(hearing(lambda number, frame: None))
        threading.Thread(target=self._listen, args=(reading,), name="signals", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def be_supervised(self) -> None:
        """From here on somebody else looks at the request and at the launcher."""
        self._is_supervised = True

    def is_launcher_gone(self) -> bool:
        """Whether the process that has started this one has ended."""
        return os.getppid() != self._launcher

    def _listen(self, reading: int) -> None:
        look = select.poll()
        look.register(reading, select.POLLIN)
        while True:
            if look.poll(1000 * LOOK_S):
                numbers = os.read(reading, 512)
                if not numbers:
                    os.close(reading)
                    return
                for number in STOP_SIGNALS.intersection(numbers):
                    self.request.hear(number)
            self._end_if_nobody_else_does()

    def _end_if_nobody_else_does(self) -> None:
        if self.request.is_urgently_unanswered(AT_ONCE_S):
            leave(INTERRUPTED)
        if self._is_supervised:
            return
        if self.request.is_unanswered(ALONE_S):
            leave(REQUEUE, partial(say, f"greedypipe: {before_training(self.request.signal)}" if self._speaks else ""))
        if self.is_launcher_gone():
            leave(FAILED, partial(say, "greedypipe: the launcher is gone"))


def at_once(signal_name: str) -> Cause:
    """The cause of a run's end that was told to stop twice."""
    return Cause("interrupted", f"ended at once by a second signal ({signal_name})")


def before_training(signal_name: str) -> str:
    """The cause of a run's end that was told to stop when it had not begun to train.

    Args:
        signal_name: Empty where another process heard it.
    """
    return f"told to stop{f' ({signal_name})' if signal_name else ''} before training began: nothing to save"


def _is_ignored_by_nohup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
