"""The order in which the blocks of one process handle a batch; it follows from the delays of their feedback alone."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from greedypipe.pipeline.feedback import Timing


class Act(Enum):
    """What a block does with a batch."""

    FORWARD = "forward"
    LEARN = "learn"


class Step(NamedTuple):
    """One act of the block at a position among those of the process."""

    act: Act
    position: int


def turn_order(timings: Sequence[Timing]) -> tuple[Step, ...]:
    """The acts of one turn of consecutive blocks.

    A block learns right after its forward, which needs the least memory. Blocks joined by feedback without delay are a
    group: all of its forwards come first, then its blocks learn from the last to the first, as in back-propagation.
    """
    order: list[Step] = []
    group: list[int] = []
    for position, timing in enumerate(timings):
        group.append(position)
        waits_for_next = timing.reads and timing.delay == 0 and position < len(timings) - 1
        if not waits_for_next:
            order += [Step(Act.FORWARD, one) for one in group] + [Step(Act.LEARN, one) for one in reversed(group)]
            group = []
    return tuple(order)
