"""Finds out who holds a pipeline up: which stage computes for too long, and which only waits because of another."""

from collections.abc import Sequence

from greedypipe.workers.placement import stage_name
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.records import StageRow

SLOW_S = 5.0
"""Seconds of computing one batch, or of waiting, after which a stage is worth a remark."""


def judge(rows: Sequence[StageRow | None], labels: Sequence[str], now_s: float) -> list[str]:
    """One remark per process.

    Only a stage that computes, or that gives no sign of life, "hangs". A stage that waits starves, or waits for room,
    because of the stage at the end of the chain of waits.

    Args:
        rows: Status of the processes, by rank; None for one that has not begun.
        labels: Labels of the processes' seats (workers.placement.Seat).
        now_s: Unix time.
    """
    waits = Waits(rows, labels)
    return [_remark(waits, rank, now_s) for rank in range(len(rows))]


def _remark(waits: "Waits", rank: int, now_s: float) -> str:
    row = waits.rows[rank]
    if row is None:
        return "has not begun"
    if row.activity == Activity.DONE:
        return "has ended"
    if now_s - row.unix_s > SLOW_S:
        return f"hangs: no sign of life for {now_s - row.unix_s:.0f} s"
    if row.for_s < SLOW_S:
        return "ok"
    awaited = waits.awaited(rank)
    if awaited is None:
        return f"hangs: on one batch for {row.for_s:.0f} s" if row.activity == Activity.COMPUTING else row.doing
    culprit = waits.end_of_chain(rank)
    verb = "waits" if awaited > rank else "starves"
    return f"{verb} because of {stage_name(waits.labels[culprit])} ({_doing(waits.rows[culprit])})"


def _doing(row: StageRow | None) -> str:
    return "has not begun" if row is None else f"{row.doing} for {row.for_s:.0f} s"


class Waits:
    """Which process waits for which other one."""

    def __init__(self, rows: Sequence[StageRow | None], labels: Sequence[str]) -> None:
        self.rows = rows
        self.labels = labels
        self._ranks: dict[str, int] = {}
        for rank, label in enumerate(labels):
            self._ranks[stage_name(label)] = rank
            # Others wait for a stage of several replicas as a whole: the first replica stands for it.
            self._ranks.setdefault(stage_name(label.partition(".")[0]), rank)

    def awaited(self, rank: int) -> int | None:
        """The process that `rank` waits for, or the first of several replicas; None if it waits for none."""
        row = self.rows[rank]
        return None if row is None else self._ranks.get(row.peer)

    def end_of_chain(self, rank: int) -> int:
        """Follows the waits from `rank` to the last process; stops if they form a cycle."""
        seen = {rank}
        while (awaited := self.awaited(rank)) is not None and awaited not in seen:
            seen.add(awaited)
            rank = awaited
        return rank if awaited is None else awaited
