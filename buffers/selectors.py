"""Which stored item is read next: pure functions of the bookkeeping, without a lock, a clock or the payload."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


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


Selector = Callable[[Sequence[Entry], int], Entry | None]
"""Picks from the entries, oldest first and never empty, given the capacity; None where nothing may be read yet."""


def oldest(entries: Sequence[Entry], capacity: int) -> Entry:
    """The first in: a queue, when what is read is also removed."""
    return entries[0]


def newest(entries: Sequence[Entry], capacity: int) -> Entry:
    """The last in, however often it has been read."""
    return entries[-1]


def least_used(entries: Sequence[Entry], capacity: int) -> Entry:
    """The entry with the fewest reads, ties to the newest: the rule of DGL's replay buffer as it is described."""
    return min(reversed(entries), key=lambda entry: entry.reuse)


def published_dgl(entries: Sequence[Entry], capacity: int) -> Entry:
    """The ranking of the published DGL code (eugenium/DGL, buffer_experiments), to reproduce its numbers.

    Like `least_used`, but in a full ring the slot at the write pointer, which holds the oldest batch, ranks as the
    newest: the code compares slot index and pointer by "greater" where "greater or equal" is meant.
    """
    if len(entries) == capacity:
        entries = [*entries[1:], entries[0]]
    return least_used(entries, capacity)


def uniform(seed: int) -> Selector:
    """Any entry with equal probability; the draws are a function of `seed` and of the number of reads."""
    generator = random.Random(seed)
    return lambda entries, capacity: entries[generator.randrange(len(entries))]


def capped(selector: Selector, max_reuse: int) -> Selector:
    """`selector` among the entries that have been read fewer than `max_reuse` times."""

    def select(entries: Sequence[Entry], capacity: int) -> Entry | None:
        fresh = [entry for entry in entries if entry.reuse < max_reuse]
        return selector(fresh, capacity) if fresh else None

    return select
