"""How one end of a link waits for the other in the rendezvous store, so that the wait can be given up."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch.distributed import Store

POLL_S = 0.005


class GivenUp(ConnectionError):
    """The awaited end will not connect: it has been started again, and waits elsewhere."""


@dataclass(frozen=True)
class Patience:
    """Deadline for one peer.

    Attributes:
        peer: The other end in words, e.g. "stage 1".
        is_over: Returns True once the wait is pointless.
    """

    peer: str
    timeout_s: float
    is_over: Callable[[], bool] = lambda: False

    def read(self, store: Store, key: str) -> bytes:
        """The value of a key. Blocks until the other end has set it.

        Raises:
            GivenUp: The wait became pointless first.
            ConnectionError: The other end did not set it in time.
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
