"""Statistics of a buffer: the figures behind staleness, reuse, occupancy and waiting."""

from dataclasses import dataclass, field

STALENESS_LIMIT = 32
"""Staleness values from here on share one count."""


@dataclass(slots=True)
class BufferStats:
    """Counts since construction. Training items only, except the seconds, which include waits for control items."""

    capacity: int
    inserted: int = 0
    reads: int = 0
    distinct_reads: int = 0
    """Items that were read at least once."""
    dropped: int = 0
    """Items replaced by newer ones before they were read."""
    staleness_sum: int = 0
    staleness_max: int = 0
    staleness_counts: list[int] = field(default_factory=lambda: [0] * (STALENESS_LIMIT + 1))
    """Reads by staleness; the last entry counts all of STALENESS_LIMIT or more."""
    occupancy_sum: float = 0.0
    wait_input_s: float = 0.0
    """Seconds that readers waited for an item."""
    wait_room_s: float = 0.0
    """Seconds that inserters waited for room."""

    def count_read(self, staleness: int, first_time: bool, held: int) -> None:
        self.reads += 1
        self.distinct_reads += first_time
        self.staleness_sum += staleness
        self.staleness_counts[min(staleness, STALENESS_LIMIT)] += 1
        self.staleness_max = max(self.staleness_max, staleness)
        self.occupancy_sum += held / self.capacity

    @property
    def staleness_mean(self) -> float:
        """Mean number of newer items that the producer had delivered when an item was read."""
        return self.staleness_sum / self.reads if self.reads else 0.0

    @property
    def reuse_mean(self) -> float:
        """Reads per item, over the items that were read at least once; 1 for a queue."""
        return self.reads / self.distinct_reads if self.distinct_reads else 0.0

    @property
    def occupancy_mean(self) -> float:
        """Mean of items held / capacity, in [0, 1], sampled at each read; the item read counts as held."""
        return self.occupancy_sum / self.reads if self.reads else 0.0
