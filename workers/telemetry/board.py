"""The status board: heartbeats, results and the first cause of a failure, in the rendezvous store, off the data path."""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from torch.distributed import PrefixStore, Store

CAUSE = "cause"
POLL_S = 0.02
T = TypeVar("T")


class Board:
    """What all processes of a run write and read. Every call is one short request to the store."""

    def __init__(self, store: Store, num_processes: int) -> None:
        self._store = PrefixStore("board", store)
        self.num_processes = num_processes

    def post(self, topic: str, rank: int, value: dict[str, Any]) -> None:
        """Sets a process's entry under a topic."""
        self._store.set(f"{topic}/{rank}", json.dumps(value))

    def read(self, topic: str) -> list[dict[str, Any] | None]:
        """The entries of all processes under a topic, by rank, None where one has none yet."""
        return [self._peek(f"{topic}/{rank}") for rank in range(self.num_processes)]

    def is_complete(self, topic: str) -> bool:
        """Whether every process has an entry under the topic."""
        return self._store.check([f"{topic}/{rank}" for rank in range(self.num_processes)])

    def all_rows(self, topic: str, key: str) -> bool:
        """Whether every process has an entry under the topic with a true value for `key`."""
        return all(entry and entry[key] for entry in self.read(topic))

    def post_cause(self, rank: int, cause: dict[str, Any]) -> bool:
        """Records why the run fails, as a process sees it; returns whether it was the first. Later ones are ignored."""
        first = self._store.compare_set(CAUSE, "", json.dumps(cause | {"reported_by": rank}))
        return json.loads(first)["reported_by"] == rank

    def cause(self) -> dict[str, Any] | None:
        """The first cause, once there is one."""
        return self._peek(CAUSE)

    def share(self, name: str, value: str | None = None) -> str:
        """Lets one process set a value (given) that all others wait for (None)."""
        if value is not None:
            self._store.set(name, value)
        return self._store.get(name).decode()

    def _peek(self, key: str) -> dict[str, Any] | None:
        # get() would block until the key exists.
        return json.loads(self._store.get(key)) if self._store.check([key]) else None


def wait_for(look: Callable[[], T | None], timeout_s: float, whom: Callable[[], str]) -> T:
    """Looks until there is something. Blocks, for `timeout_s` seconds at most.

    Raises:
        TimeoutError: There was nothing; says `whom` it still waited for.
    """
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {whom()}")
        time.sleep(POLL_S)
    return found
