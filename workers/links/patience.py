"""How one process waits for another one while they connect, so that the wait can be given up."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch.distributed import Store

POLL_S = 0.005
T = TypeVar("T")


class GivenUp(ConnectionError):
    """The awaited process will not connect: it has been started again, and waits elsewhere."""


@dataclass(frozen=True)
class Patience:
    """Deadline for one peer.

    Attributes:
        peer: The awaited process in words, e.g. "stage 1".
        is_over: Returns True once the wait is pointless.
    """

    peer: str
    timeout_s: float
    is_over: Callable[[], bool] = lambda: False

    def read(self, store: Store, key: str) -> bytes:
        """The value of a key. Blocks until the other process has set it.

        Raises:
            GivenUp: The wait became pointless first.
            ConnectionError: The other process did not set it in time.
        """
        self.wait_until(lambda: store.check([key]))
        return store.get(key)

    def wait_until(self, is_there: Callable[[], bool]) -> None:
        """Blocks until `is_there` returns True; raises as `read` does."""
        deadline = time.monotonic() + self.timeout_s
        while not is_there():
            if self.is_over():
                raise GivenUp(f"{self.peer} has been started again")
            if time.monotonic() > deadline:
                raise ConnectionError(f"waited {self.timeout_s:g} s to connect to {self.peer}")
            time.sleep(POLL_S)

    def call(self, make: Callable[[], T]) -> T:
        """The result of `make`, a call that cannot be interrupted and waits for the other process. Blocks.

        A call that is given up goes on in a thread of its own until its own deadline; its result is dropped.

        Raises:
            GivenUp: The wait became pointless first.
            ConnectionError: The call did not return in time.
            Exception: What `make` raises.
        """
        call = _Call(make)
        threading.Thread(target=call.run, name=f"connect to {self.peer}", daemon=True).start()
        self.wait_until(call.done.is_set)
        if call.error is not None:
            raise call.error
        (result,) = call.results
        return result


@dataclass
class _Call(Generic[T]):
    """A call in a thread, and what it came to."""

    make: Callable[[], T]
    done: threading.Event = field(default_factory=threading.Event)
    results: list[T] = field(default_factory=list)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.results.append(self.make())
        except BaseException as error:  # travels as data: the waiting thread raises it
            self.error = error
        self.done.set()
