"""The status board: heartbeats, results and the first cause of a failure, in the rendezvous store, off the data path."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch.distributed import PrefixStore, Store

from greedypipe.workers.telemetry.records import Cause
from greedypipe.workers.telemetry.topics import CAUSE, Topic

POLL_S = 0.02
T = TypeVar("T")


class Board:
    """Entries of all processes of a run, by topic (workers.telemetry.topics).

    Every call except `share` makes one short request to the store, or one per process.
    """

    def __init__(self, store: Store, num_processes: int) -> None:
        self._store = PrefixStore("board", store)
        self.num_processes = num_processes

    def post(self, topic: Topic[T], rank: int, value: T) -> None:
        """Sets a process's entry under a topic."""
        self._store.set(f"{topic.name}/{rank}", topic.write(value))

    def read(self, topic: Topic[T]) -> list[T | None]:
        """The entries of all processes under a topic, by rank; None for a process without one."""
        return [self._peek(topic, f"{topic.name}/{rank}") for rank in range(self.num_processes)]

    def posted(self, topic: Topic[T]) -> list[T]:
        """The existing entries under a topic, in the order of ranks."""
        return [entry for entry in self.read(topic) if entry is not None]

    def is_complete(self, topic: Topic[T]) -> bool:
        """Whether every process has an entry under the topic."""
        return self._store.check([f"{topic.name}/{rank}" for rank in range(self.num_processes)])

    def all_rows(self, topic: Topic[T], holds: Callable[[T], bool]) -> bool:
        """Whether every process has an entry under the topic for which `holds` is true."""
        return all(entry is not None and holds(entry) for entry in self.read(topic))

    def post_cause(self, rank: int, cause: Cause) -> bool:
        """Records why the run fails, as a process sees it; returns whether this is the first. Later ones are ignored."""
        first = self._store.compare_set(CAUSE.name, "", CAUSE.write(replace(cause, reported_by=rank)))
        return CAUSE.read(first).reported_by == rank

    def cause(self) -> Cause | None:
        """The first cause, or None while there is none."""
        return self._peek(CAUSE, CAUSE.name)

    def share(self, topic: Topic[T], value: T | None = None) -> T:
        """Shares one value: the process that gives one sets it, and all others (None) wait for it."""
        if value is not None:
            self._store.set(topic.name, topic.write(value))
        return topic.read(self._store.get(topic.name))

    def _peek(self, topic: Topic[T], key: str) -> T | None:
        # get() would block until the key exists.
        return topic.read(self._store.get(key)) if self._store.check([key]) else None


def wait_for(look: Callable[[], T | None], timeout_s: float, whom: Callable[[], str]) -> T:
    """Calls `look` until it returns a value. Blocks, for at most `timeout_s` seconds.

    Raises:
        TimeoutError: It returned only None; the message names `whom`.
    """
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {whom()}")
        time.sleep(POLL_S)
    return found
