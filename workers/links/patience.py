"""How one end of a link waits for the other in the rendezvous store, so that the wait can be given up."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch.distributed import Store

POLL_S = 0.005


class GivenUp(ConnectionError):
    """The end that was waited for will not come: it has been started again, and waits elsewhere."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for whom.

    Attributes:
        peer: The other end in words, e.g. "stage 1".
        is_over: Whether it makes no sense any more.
    """

    peer: str
    timeout_s: float
    is_over: Callable[[], bool] = lambda: False

    def read(self, store: Store, key: str) -> bytes:
        """The value of a key, as soon as the other end has set it. Blocks.

        Raises:
            GivenUp: The wait is over before.
            ConnectionError: Nobody set it in time.
        """
        self.wait_until(lambda: store.check([key]))
        return store.get(key)

    def wait_until(self, is_there: Callable[[], bool]) -> None:
        """Looks until the other end is there. Blocks; raises as `read` does."""
        deadline = time.monotonic() + self.timeout_s
        while not is_there():
            if self.is_over():
                raise GivenUp(f"{self.peer} has been started again")
            if time.monotonic() > deadline:
                raise ConnectionError(f"waited {self.timeout_s:g} s to connect to {self.peer}")
            time.sleep(POLL_S)
