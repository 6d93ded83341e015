"""Selectors decide which stored item is read next: pure functions of the bookkeeping; no lock, clock or payload."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True, eq=False)
class Entry:
    """The bookkeeping of one stored item.

    `position` numbers insertions of every kind, `sequence` those of training items alone (staleness counts these).
    """

    item: Any
    position: int
    sequence: int
    reuse: int = 0
    leases: int = field(default=0, repr=False)
    stored: bool = field(default=True, repr=False)


class Selector(Protocol):
    """Picks an entry that has been read fewer than `max_reuse` times; returns None if there is none.

    `entries` are sorted oldest first and never empty. `capacity` distinguishes a full store from one still filling.
    """

    def __call__(self, entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None: ...


def oldest(entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None:
    """The oldest entry: a queue, if reading also removes."""
    return next(_readable(entries, max_reuse), None)


def newest(entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None:
    """The newest entry that may still be read."""
    return next(_readable(reversed(entries), max_reuse), None)


def least_used(entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None:
    """The entry with the fewest reads, ties to the newest: DGL's replay buffer as the paper describes it."""
    return min(_readable(reversed(entries), max_reuse), key=lambda entry: entry.reuse, default=None)


def published_dgl(entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None:
    """The ranking of the published DGL code (eugenium/DGL, buffer_experiments), to reproduce its numbers.

    Like `least_used`, but in a full ring the slot at the write pointer, which holds the oldest batch, ranks as the
    newest: the code compares slot index and pointer with "greater" where "greater or equal" is meant.
    """
    if len(entries) == capacity:
        entries = [*entries[1:], entries[0]]
    return least_used(entries, capacity, max_reuse)


def uniform(seed: int) -> Selector:
    """Any entry with equal probability; the draws are a function of `seed` and of the number of reads."""
    generator = random.Random(seed)

    def select(entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None:
        readable = list(_readable(entries, max_reuse))
        return readable[generator.randrange(len(readable))] if readable else None

    return select


def capped(selector: Selector, cap: int) -> Selector:
    """`selector`, restricted to entries that have been read fewer than `cap` times."""

    def select(entries: Sequence[Entry], capacity: int, max_reuse: float = math.inf) -> Entry | None:
        return selector(entries, capacity, min(cap, max_reuse))

    return select


def _readable(entries: Iterable[Entry], max_reuse: float) -> Iterator[Entry]:
    return (entry for entry in entries if entry.reuse < max_reuse)
