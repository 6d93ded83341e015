"""Processes that stand still: which one holds up the others, and what it was doing."""

import contextlib
import faulthandler
from collections.abc import Sequence
from pathlib import Path

from greedypipe.launch.recovery.leaving import within
from greedypipe.workers.placement import stage_name
from greedypipe.workers.telemetry.diagnosis import SLOW_S, Waits
from greedypipe.workers.telemetry.phrases import range_of_blocks
from greedypipe.workers.telemetry.records import Cause, StageRow


def culprit_of(rows: Sequence[StageRow | None], labels: Sequence[str], rank: int) -> Cause | None:
    """The process at the end of the chain of waits that begins with `rank`, if it has not moved for SLOW_S; else None.

    Args:
        rows: What the processes were doing when the waiting one gave up, by rank.
        labels: Of the processes' seats.
        rank: Of the waiting one.
    """
    culprit = Waits(rows, labels).end_of_chain(rank)
    if culprit == rank:
        return None
    row = rows[culprit]
    if row is None:
        waiting = rows[rank]
        waits = f": {waiting.name} is {waiting.doing} for {waiting.for_s:.0f} s" if waiting else ""
        return Cause("hung", f"{stage_name(labels[culprit])} has not begun{waits}")
    if row.for_s < SLOW_S:
        return None
    return Cause("hung", f"{described(row)} stands still: {row.doing} for {row.for_s:.0f} s, batch_id {row.batch_id}")


def described(row: StageRow) -> str:
    """A process in words by which its user can find it."""
    return f"{row.name} ({range_of_blocks(row.blocks)}, process {row.pid} on {row.host})"


def write_stacks(path: Path) -> bool:
    """Writes the stack of every thread of this process; returns whether that succeeded. Does not wait for a hanging disk."""

    def write() -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file)

    return within(write) and path.exists()
