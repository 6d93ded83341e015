"""Where to cut a network so that the slowest stage is as fast as possible: exact, over all contiguous cuts."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

Rank = Callable[[float, int], tuple[float, float]]

TIE = 0.01
"""Stage times within this fraction of the best count as equal: the bytes sent decide between such cuts."""


@dataclass(frozen=True)
class Costs:
    """Cost of training one batch, unit by unit; a unit is the smallest possible block.

    Two measurements of whole blocks determine the cost of every block: its last unit alone with the head behind it, and what
    each unit before that one adds. The head's share of a block's time need not be known.

    Attributes:
        alone_s: Seconds of a block of unit i alone, head and optimizer included; the last one's head is the classifier.
        before_s: Seconds that unit i adds to a block that begins with unit i + 1: its own work, and the gradient of unit
            i + 1's input, which the first unit of a block does not compute. One entry fewer than units.
        sent_bytes: Bytes per batch that a link behind unit i carries.

    Raises:
        ValueError: The lengths do not match, or there is no unit.
    """

    alone_s: tuple[float, ...]
    before_s: tuple[float, ...]
    sent_bytes: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = len(self.alone_s), len(self.before_s), len(self.sent_bytes)
        if lengths[0] == 0 or lengths != (lengths[0], lengths[0] - 1, lengths[0]):
            raise ValueError(f"units have n, n - 1 and n costs, n at least 1, got {list(lengths)}")

    @property
    def num_units(self) -> int:
        return len(self.alone_s)

    def block_s(self, start: int, stop: int) -> float:
        """Seconds per batch of a block of the units start to stop - 1, its head included."""
        return self.alone_s[stop - 1] + self._before[stop - 1] - self._before[start]

    def stage_s(self, starts: Sequence[int], blocks: range) -> float:
        """Seconds per batch of a stage that hosts `blocks` of a cut."""
        edges = (*starts, self.num_units)
        return sum(self.block_s(edges[block], edges[block + 1]) for block in blocks)

    @property
    def back_propagation_s(self) -> float:
        """Seconds per batch of all units as one block: the baseline that decoupling is compared with."""
        return self.block_s(0, self.num_units)

    @cached_property
    def _before(self) -> list[float]:
        return [0.0, *itertools.accumulate(self.before_s)]


def balanced_starts(costs: Costs, hosting: Sequence[range]) -> tuple[int, ...]:
    """The first unit of every block in the cut with the fastest slowest stage. Among cuts within TIE of that optimum, the
    one that sends the fewest bytes between stages wins, such as a cut behind pooling, which shrinks the activation.

    Args:
        hosting: The blocks of every stage, in order.

    Raises:
        ValueError: More blocks than units.
    """
    num_blocks = hosting[-1].stop
    if num_blocks > costs.num_units:
        raise ValueError(f"partition.blocks: got {num_blocks}, but the network has {costs.num_units} layers with parameters")
    stages = _Stages(costs, [len(blocks) for blocks in hosting])
    (least_s, _), _ = stages.best(lambda slowest_s, sent: (slowest_s, sent), math.inf)
    _, starts = stages.best(lambda slowest_s, sent: (sent, slowest_s), least_s * (1 + TIE))
    return starts


class _Stages:
    """Dynamic program over the stages; the `blocks[s]` blocks of stage s are cut as cheaply as possible."""

    def __init__(self, costs: Costs, blocks: Sequence[int]) -> None:
        self._costs = costs
        self._blocks = blocks
        self._inside = {count: _cut_inside(costs, count) for count in set(blocks)}

    def best(self, rank: Rank, limit_s: float) -> tuple[tuple[float, float], tuple[int, ...]]:
        """The least rank of (slowest stage's seconds, bytes sent) with no stage above `limit_s`, and its block starts."""
        units = self._costs.num_units
        reached: dict[int, tuple[float, int, tuple[int, ...]]] = {0: (0.0, 0, ())}
        for stage, count in enumerate(self._blocks):
            behind: dict[int, tuple[float, int, tuple[int, ...]]] = {}
            for start, (slowest_s, sent, starts) in reached.items():
                for stop in range(start + count, units + 1):
                    seconds, cut = self._inside[count][start, stop]
                    if seconds > limit_s or (stage == len(self._blocks) - 1) != (stop == units):
                        continue
                    carried = sent + (self._costs.sent_bytes[stop - 1] if stop < units else 0)
                    found = max(slowest_s, seconds), carried, (*starts, *cut)
                    if stop not in behind or rank(*found[:2]) < rank(*behind[stop][:2]):
                        behind[stop] = found
            reached = behind
        slowest_s, sent, starts = reached[units]
        return rank(slowest_s, sent), starts


def _cut_inside(costs: Costs, blocks: int) -> dict[tuple[int, int], tuple[float, tuple[int, ...]]]:
    """For every range of units (start, stop): the least seconds of `blocks` blocks made of it, and their first units."""
    spans = list(itertools.combinations(range(costs.num_units + 1), 2))
    found: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {
        (start, stop): (costs.block_s(start, stop), (start,)) for start, stop in spans
    }
    for count in range(2, blocks + 1):
        found = {
            (start, stop): min(
                (found[start, middle][0] + costs.block_s(middle, stop), (*found[start, middle][1], middle))
                for middle in range(start + count - 1, stop)
            )
            for start, stop in spans
            if stop - start >= count
        }
    return found


def processes_per_stage(stage_s: Sequence[float], num_processes: int, batch_size: int) -> tuple[int, ...]:
    """Assigns surplus processes one by one as replicas of whichever stage is then the slowest.

    Args:
        stage_s: Seconds per batch of every stage in one process.
        num_processes: At least one per stage. Processes that cannot speed up the slowest stage stay unused.
        batch_size: Must be divisible by the number of replicas of every stage.

    Returns:
        Number of processes of every stage.
    """
    replicas = [1] * len(stage_s)
    while True:
        slowest = max(range(len(stage_s)), key=lambda stage: stage_s[stage] / replicas[stage])
        left = num_processes - sum(replicas)
        steps = (more for more in range(1, left + 1) if batch_size % (replicas[slowest] + more) == 0)
        if (more := next(steps, None)) is None:
            return tuple(replicas)
        replicas[slowest] += more
