"""The bounded, closable store between two stages: a queue and DGL's replay buffer are two configurations of it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from greedypipe.buffers.selectors import Entry, Selector, capped, least_used, newest, oldest, published_dgl, uniform
from greedypipe.buffers.stats import BufferStats

T = TypeVar("T")

CONTROL_CAPACITY = 2
"""Control items that a replay buffer holds, in addition to its training items, before `insert_control` waits."""


class BuffersConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """The buffer between two neighbouring stages."""

    policy: Literal["fifo", "replay"] = Field(
        "fifo",
        description="fifo: every batch is read once and in order, a full buffer makes its sender wait (synchronous DGL); "
        "replay: senders never wait, batches may be read again or skipped (asynchronous DGL)",
    )
    capacity: int = Field(4, ge=1, le=65536, description="batches that each buffer holds; with replay, M in the papers")
    selector: Literal["least_used", "published_dgl", "newest", "uniform"] = Field(
        "least_used",
        description="policy=replay: the batch to read next: least_used: fewest reads, newest first; newest; uniform: at "
        "random; published_dgl: as the published DGL code",
    )
    max_reuse: int = Field(
        2,
        ge=0,
        description="policy=replay: how often one batch may be read; 0: no limit",
    )

    @field_validator("selector", "max_reuse")
    @classmethod
    def _only_replay_uses_it(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("policy") == "fifo" and value != cls.model_fields[str(info.field_name)].default:
            why = f"got {value!r}, which has no effect with buffers.policy=fifo; it needs buffers.policy=replay"
            raise PydanticCustomError("no_effect", "{why}", {"why": why})
        return value


@dataclass(frozen=True)
class Policy:
    """One configuration of the store, chosen once.

    Attributes:
        select: Picks the next item to read.
        consumes: A read removes the item. Then nothing may be lost, so inserting into a full store waits and control
            items keep their place among the training items. Otherwise inserting replaces the oldest item and never
            waits, and control items are read before any training item.
    """

    select: Selector
    consumes: bool

    @classmethod
    def fifo(cls) -> "Policy":
        return cls(oldest, consumes=True)

    @classmethod
    def replay(cls, selector: Selector = least_used, max_reuse: int = 0) -> "Policy":
        return cls(capped(selector, max_reuse) if max_reuse else selector, consumes=False)

    @classmethod
    def from_config(cls, config: BuffersConfig, seed: int) -> "Policy":
        if config.policy == "fifo":
            return cls.fifo()
        selectors = {"least_used": least_used, "published_dgl": published_dgl, "newest": newest, "uniform": uniform(seed)}
        return cls.replay(selectors[config.selector], config.max_reuse)


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """One item as read. The reader calls `done` when it no longer needs the item's memory."""

    item: T
    staleness: int
    reuse: int
    """Reads of the item, this one included; 0 for control items, which are not counted."""
    _release: Callable[[], None]

    def done(self) -> None:
        """Lets the buffer reuse the item's memory. Must be called exactly once."""
        self._release()


class ReplayBuffer(Generic[T]):
    """A bounded store for one producer thread and one consumer thread; it never looks into an item.

    | call           | queue (consumes)          | replay                              | unblocked by             |
    |----------------|---------------------------|-------------------------------------|--------------------------|
    | insert         | waits while full          | never waits, replaces the oldest    | read, close              |
    | insert_control | waits while full          | waits while CONTROL_CAPACITY wait   | read, close              |
    | read           | waits while empty         | waits while no item may be read     | insert*, close           |

    Args:
        capacity: Items held at most, at least 1.
        policy: Queue or replay.
        dispose: Called once per item, when it has left the store and its readers are done, so that its memory is free.
            Called with the buffer's lock held; must not call back into the buffer.
    """

    def __init__(self, capacity: int, policy: Policy, dispose: Callable[[T], None] = lambda item: None) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 batch, got {capacity}")
        self._capacity = capacity
        self._policy = policy
        self._dispose = dispose
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._control: deque[Entry] = deque()
        self._position = 0
        self._stats = BufferStats(capacity)
        self._closed: BaseException | None = None

    def insert(self, item: T, timeout_s: float) -> None:
        """Stores a training item; see the class for when it waits.

        Raises:
            TimeoutError: No room within `timeout_s`.
            Exception: The error passed to `close`.
        """
        with self._changed:
            if self._policy.consumes:
                self._wait_for_room(self._queue_has_room, timeout_s)
            self._raise_if_closed()
            if len(self._entries) == self._capacity:
                self._evict(self._entries[0])
            self._entries.append(self._entry(item, self._stats.inserted))
            self._stats.inserted += 1

    def insert_control(self, item: T, timeout_s: float) -> None:
        """Stores an item that is read exactly once, in order, and never replaced: an evaluation batch or a mark."""
        with self._changed:
            room = self._queue_has_room if self._policy.consumes else lambda: len(self._control) < CONTROL_CAPACITY
            self._wait_for_room(room, timeout_s)
            self._raise_if_closed()
            self._control.append(self._entry(item, -1))

    def read(self, timeout_s: float) -> Read[T]:
        """Returns the next item; see the class for when it waits.

        Raises:
            TimeoutError: Nothing to read within `timeout_s`.
            Exception: The error passed to `close`.
        """
        with self._changed:
            self._raise_if_closed()
            entry = self._next() or self._wait_for_entry(timeout_s)
            return self._lease(entry)

    def try_read(self) -> Read[T] | None:
        """Like `read`, but returns None where `read` would wait."""
        with self._changed:
            self._raise_if_closed()
            entry = self._next()
            return self._lease(entry) if entry else None

    def cap_reuse(self, max_reuse: int) -> None:
        """Limits every item to `max_reuse` reads from here on; a queue reads each item only once anyway."""
        with self._changed:
            if not self._policy.consumes:
                self._policy = Policy.replay(self._policy.select, max_reuse)

    def close(self, error: BaseException) -> None:
        """Makes every waiting and every later call raise `error`. The first close wins."""
        with self._changed:
            self._closed = self._closed or error
            self._changed.notify_all()

    def stats(self) -> BufferStats:
        """A copy of the figures so far."""
        with self._changed:
            return replace(self._stats, staleness_counts=self._stats.staleness_counts.copy())

    @property
    def occupancy(self) -> float:
        """Training items held / capacity, in [0, 1]."""
        with self._changed:
            return len(self._entries) / self._capacity

    @property
    def is_readable(self) -> bool:
        """Whether `read` would not wait."""
        with self._changed:
            return self._closed is not None or self._next() is not None

    @property
    def has_room(self) -> bool:
        """Whether an insert of either kind into a queue would not wait."""
        with self._changed:
            return self._queue_has_room()

    def _queue_has_room(self) -> bool:
        return len(self._entries) + len(self._control) < self._capacity

    def _wait_for_room(self, has_room: Callable[[], bool], timeout_s: float) -> None:
        if has_room():
            return
        started = time.perf_counter()
        if not self._changed.wait_for(lambda: self._closed or has_room(), timeout_s):
            raise TimeoutError(f"no room for {timeout_s:g} s")
        self._stats.wait_room_s += time.perf_counter() - started

    def _wait_for_entry(self, timeout_s: float) -> Entry:
        started = time.perf_counter()
        found = self._changed.wait_for(lambda: self._closed or self._next(), timeout_s)
        self._stats.wait_input_s += time.perf_counter() - started
        self._raise_if_closed()
        if found is None:
            raise TimeoutError(f"nothing to read for {timeout_s:g} s")
        assert isinstance(found, Entry)
        return found

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise self._closed

    def _entry(self, item: Any, sequence: int) -> Entry:
        self._position += 1
        self._changed.notify_all()
        return Entry(item, self._position, sequence)

    def _next(self) -> Entry | None:
        if self._control and not self._must_wait_its_turn(self._control[0]):
            return self._control[0]
        return self._policy.select(self._entries, self._capacity) if self._entries else None

    def _must_wait_its_turn(self, control: Entry) -> bool:
        return self._policy.consumes and bool(self._entries) and self._entries[0].position < control.position

    def _lease(self, entry: Entry) -> Read[T]:
        staleness = 0
        if entry.sequence < 0:
            self._control.popleft()
            entry.stored = False
        else:
            staleness = self._stats.inserted - 1 - entry.sequence
            entry.reuse += 1
            self._stats.count_read(staleness, entry.reuse == 1, len(self._entries))
            if self._policy.consumes:
                self._entries.remove(entry)
                entry.stored = False
        entry.leases += 1
        self._changed.notify_all()
        return Read(entry.item, staleness, entry.reuse, lambda: self._return(entry))

    def _return(self, entry: Entry) -> None:
        with self._changed:
            assert entry.leases > 0, "done() was called twice"
            entry.leases -= 1
            self._dispose_if_free(entry)

    def _evict(self, entry: Entry) -> None:
        self._entries.remove(entry)
        entry.stored = False
        self._stats.dropped += entry.reuse == 0
        self._dispose_if_free(entry)

    def _dispose_if_free(self, entry: Entry) -> None:
        if not entry.stored and not entry.leases:
            self._dispose(entry.item)
