"""A fixed number of preallocated slots, handed out and given back."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SlotPool(Generic[T]):
    """Slots for one thread that acquires and any threads that release.

    Args:
        count: Number of slots, at least 1.
        make: Makes one slot; called `count` times, now.
    """

    def __init__(self, count: int, make: Callable[[], T]) -> None:
        self._free = deque(make() for _ in range(count))
        self._changed = threading.Condition()
        self._closed: BaseException | None = None
        self.waited_s = 0.0

    def acquire(self, timeout_s: float) -> T:
        """Takes a slot; waits until one is free.

        Raises:
            TimeoutError: None became free within `timeout_s`.
            Exception: The one given to `close`.
        """
        with self._changed:
            if not self._free and not self._closed:
                started = time.perf_counter()
                if not self._changed.wait_for(lambda: self._free or self._closed, timeout_s):
                    raise TimeoutError(f"no free slot for {timeout_s:g} s")
                self.waited_s += time.perf_counter() - started
            if self._closed:
                raise self._closed
            return self._free.popleft()

    def release(self, slot: T) -> None:
        """Gives a slot back. Does not block."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify_all()

    def close(self, error: BaseException) -> None:
        """Makes every waiting and later `acquire` raise `error`. The first close wins."""
        with self._changed:
            self._closed = self._closed or error
            self._changed.notify_all()
