"""One life of a rank that may be started again alone, and the pulse that shows its keeper that it goes on."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass


def _unheard() -> None:
    """No-op: the pulse of a rank that has no keeper."""


@dataclass(frozen=True)
class Life:
    """One life of a rank.

    Attributes:
        incarnation: How often the rank has been started again alone.
        beat: To be called every heartbeat; does not block.
    """

    incarnation: int = 0
    beat: Callable[[], None] = _unheard


FIRST_LIFE = Life()
"""Of a rank that has not been started again, and has no keeper."""


class Pulse:
    """A pipe from a child to its keeper. Make it before the fork; it lives with the object."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def fileno(self) -> int:
        """The descriptor that becomes readable with a beat."""
        return self._read_end

    def beat(self) -> None:
        """Called in the child. A keeper that does not look, or is gone, loses nothing by it."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._write_end, b".")

    def clear(self) -> None:
        """Called in the keeper: takes the beats that have come."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_end, 4096)

    def close(self) -> None:
        """Called in the keeper when the child is gone."""
        os.close(self._read_end)
        os.close(self._write_end)
