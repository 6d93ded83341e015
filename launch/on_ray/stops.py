"""What the process that starts a run on a cluster makes of the signals by which it is told to stop.

| signal                                   | what it does                                    |
|------------------------------------------|-------------------------------------------------|
| the first one, before the processes run  | ends whatever the driver is waiting for         |
| the first one, while they run            | the run saves itself and ends                   |
| a second one (launch.recovery.stopping)  | the run ends at once                            |
"""

import contextlib
from collections.abc import Iterator
from types import FrameType

from greedypipe.launch.recovery.exit_codes import INTERRUPTED, REQUEUE
from greedypipe.launch.recovery.stopping import StopRequest, at_once, before_training, hearing


class ToldToStop(BaseException):
    """The run is to end now: whatever waits is left by this. Like KeyboardInterrupt no Exception, so that none hides it.

    Attributes:
        code: The exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Stops:
    """Hears the signals in the main thread, which waits for the cluster."""

    def __init__(self) -> None:
        self.request = StopRequest()
        self._is_watched = False

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal.

        Raises:
            ToldToStop: The run is to end now.
        """
        was_made, was_urgent = self.request.is_made, self.request.is_urgent
        self.request.hear(number, frame)
        if self.request.is_urgent and not was_urgent:
            raise ToldToStop(at_once(self.request.signal).message, INTERRUPTED)
        if not was_made and not self._is_watched:
            raise ToldToStop(before_training(self.request.signal), REQUEUE)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Handles signals in the body."""
        with hearing(self.hear):
            yield

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """For a body that looks at the request itself, and has the run save itself."""
        self._is_watched = True
        try:
            yield
        finally:
            self._is_watched = False
