"""The order of a device's work on a link: what must be done before what, without a wait of the host.

A stage puts its work on one stream, the current one of its main thread. A link whose bytes are moved by the device has a
lane beside it: a stream of its own. Marks, which are events on CUDA, order the two.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

Mark = Any
"""A point in the work of a stream, made by the lane that uses it. It may be marked again and again, and stands for what was
marked last; one that was never marked counts as reached."""

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 20e-6, 500e-6


class Lane(Protocol):
    """One link's stream of device work. No method but `enter` may be slow: none waits for the device or allocates on it."""

    def enter(self) -> None:
        """Called first by the link's own thread: what it puts on the device from now on goes to the lane."""

    def new_mark(self) -> Mark:
        """A new mark."""

    def run(self, work: Callable[[], object]) -> None:
        """Puts work on the stage's stream. Main thread."""

    def run_on_lane(self, work: Callable[[], object]) -> None:
        """Puts work on this lane. The link's thread."""

    def mark_stage(self, mark: Mark) -> None:
        """The mark is reached when everything is done that the stage has put on its stream so far. Main thread."""

    def mark_lane(self, mark: Mark) -> None:
        """The same for this lane. The link's thread."""

    def hold_lane(self, mark: Mark) -> None:
        """What follows on the lane begins when the mark is reached. The link's thread."""

    def hold_stage(self, mark: Mark) -> None:
        """What follows on the stage's stream begins when the mark is reached. Main thread."""

    def is_reached(self, mark: Mark) -> bool:
        """Whether the mark is reached. Any thread.

        Raises:
            RuntimeError: The device has failed.
        """


class HostLane:
    """A device whose work is done when the call returns: the CPU."""

    def enter(self) -> None:
        pass

    def new_mark(self) -> Mark:
        return None

    def run(self, work: Callable[[], object]) -> None:
        work()

    def run_on_lane(self, work: Callable[[], object]) -> None:
        work()

    def mark_stage(self, mark: Mark) -> None:
        pass

    def mark_lane(self, mark: Mark) -> None:
        pass

    def hold_lane(self, mark: Mark) -> None:
        pass

    def hold_stage(self, mark: Mark) -> None:
        pass

    def is_reached(self, mark: Mark) -> bool:
        return True


class PeerGone(ConnectionError):
    """The other end has gone during a wait for the device."""


def wait_for_mark(lane: Lane, mark: Mark, timeout_s: float, is_peer_there: Callable[[], bool]) -> bool:
    """Blocks until a mark is reached; returns False at the deadline.

    Polls, as an event can be waited for neither with a deadline nor together with a socket. The pauses grow from 20 to
    500 microseconds, so that waiting costs the computing thread little.

    Raises:
        PeerGone: `is_peer_there` said no first.
        RuntimeError: The device has failed.
    """
    pause_s, deadline = SHORTEST_PAUSE_S, time.monotonic() + timeout_s
    while not lane.is_reached(mark):
        if not is_peer_there():
            raise PeerGone("the other end is gone")
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return True
