"""The status board: heartbeats, results and the first cause of a failure, in the rendezvous store, off the data path."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch.distributed import PrefixStore, Store

from greedypipe.workers.output import shown
from greedypipe.workers.telemetry.records import Cause
from greedypipe.workers.telemetry.topics import CAUSE, Topic

POLL_S = 0.02
T = TypeVar("T")


class Board:
    """Entries of all processes of a run, by topic (workers.telemetry.topics).

    Every call except `share` makes one short request to the store, or one per process. An entry that cannot be read as what
    its topic holds counts as absent; one process of the run reports it, once.
    """

    def __init__(self, store: Store, num_processes: int) -> None:
        self._store = PrefixStore("board", store)
        self.num_processes = num_processes
        self._unreadable: set[str] = set()

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

    def complete(self, topic: Topic[T]) -> list[T] | None:
        """The entries of all processes under a topic, by rank; None as long as one is absent."""
        if not self.is_complete(topic):
            return None
        entries = self.posted(topic)
        return entries if len(entries) == self.num_processes else None

    def all_rows(self, topic: Topic[T], holds: Callable[[T], bool]) -> bool:
        """Whether every process has an entry under the topic for which `holds` is true."""
        return all(entry is not None and holds(entry) for entry in self.read(topic))

    def post_cause(self, rank: int, cause: Cause) -> bool:
        """Records why the run fails, as a process sees it; returns whether this is the first. Later ones are ignored."""
        text = CAUSE.write(replace(cause, reported_by=rank))
        first = self._parse(CAUSE, CAUSE.name, self._store.compare_set(CAUSE.name, "", text))
        if first is None:
            self._store.set(CAUSE.name, text)
            return True
        return first.reported_by == rank

    def cause(self) -> Cause | None:
        """The first cause, or None while there is none."""
        return self._peek(CAUSE, CAUSE.name)

    def share(self, topic: Topic[T], value: T | None = None) -> T:
        """Shares one value: the process that gives one sets it, and all others (None) wait for it.

        Raises:
            ValueError: The value cannot be read.
        """
        if value is not None:
            self._store.set(topic.name, topic.write(value))
        return self._only(topic, self._store.get(topic.name))

    def agree(self, topic: Topic[T], proposal: T) -> T:
        """A topic's only value: that of the process which comes here first. Raises as `share` does."""
        return self._only(topic, self._store.compare_set(topic.name, "", topic.write(proposal)))

    def _only(self, topic: Topic[T], text: bytes) -> T:
        value = self._parse(topic, topic.name, text)
        if value is None:
            raise ValueError(f"the status board holds no {topic.name} that can be read")
        return value

    def _peek(self, topic: Topic[T], key: str) -> T | None:
        # get() would block until the key exists.
        return self._parse(topic, key, self._store.get(key)) if self._store.check([key]) else None

    def _parse(self, topic: Topic[T], key: str, text: bytes) -> T | None:
        try:
            return topic.read(text)
        except ValueError as error:
            self._report(key, text, error)
            return None

    def _report(self, key: str, text: bytes, error: ValueError) -> None:
        if key in self._unreadable:
            return
        self._unreadable.add(key)
        if self._store.add(f"unreadable/{key}", 1) == 1:
            got = f"got {shown(text[:60].decode(errors='replace'))!r} ({_first_problem(error)})"
            line = f"greedypipe: the status board holds an entry under {key!r} that cannot be read and is ignored: {got}"
            print(line, file=sys.stderr, flush=True)


def _first_problem(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return shown(lines[-2] if len(lines) > 1 else lines[0]).partition(" [type=")[0]


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
