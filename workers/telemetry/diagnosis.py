"""Who holds a pipeline up: a stage that computes for too long, or one that starves because of another."""

import re
from collections.abc import Sequence
from typing import Any

SLOW_S = 5.0
"""Seconds on one batch, or of waiting, from which on a stage is worth a remark."""

Row = dict[str, Any]


def judge(rows: Sequence[Row | None], labels: Sequence[str], now_s: float) -> list[str]:
    """One remark per process on what it does (workers.telemetry.status.StageStatus.row).

    "hangs" is said only of a stage that computes itself or gives no sign of life. One that waits is said to starve, or to
    wait for room, because of the stage at the end of the chain of waits.

    Args:
        labels: Of the processes' seats (workers.placement.Seat).
        now_s: Unix time.
    """
    return [_remark(Waits(rows, labels), rank, now_s) for rank in range(len(rows))]


def _remark(waits: "Waits", rank: int, now_s: float) -> str:
    row = waits.rows[rank]
    if row is None:
        return "has not begun"
    if row["doing"] == "done":
        return "has ended"
    if now_s - row["unix_s"] > SLOW_S:
        return f"hangs: no sign of life for {now_s - row['unix_s']:.0f} s"
    if row["for_s"] < SLOW_S:
        return "is well"
    awaited = waits.awaited(rank)
    if awaited is None:
        return f"hangs: on one batch for {row['for_s']:.0f} s" if row["doing"] == "computing" else row["doing"]
    culprit = waits.end_of_chain(rank)
    verb = "waits" if awaited > rank else "starves"
    return f"{verb} because of stage {waits.labels[culprit]} ({_doing(waits.rows[culprit])})"


def _doing(row: Row | None) -> str:
    return "has not begun" if row is None else f"{row['doing']} for {row['for_s']:.0f} s"


class Waits:
    """Which process waits for which."""

    def __init__(self, rows: Sequence[Row | None], labels: Sequence[str]) -> None:
        self.rows = rows
        self.labels = labels
        self._stages = [int(label.partition(".")[0]) for label in labels]

    def awaited(self, rank: int) -> int | None:
        """The process that a waiting one waits for, the first of several replicas; None where it waits for none."""
        row = self.rows[rank]
        if row is None:
            return None
        if row["doing"] == "waiting for room":
            return self._first_of(self._stages[rank] + 1)
        named = re.match(r"waiting for stage (\d+)(\.\d+)?", row["doing"])
        if named is None:
            return None
        label = named[1] + (named[2] or "")
        return self.labels.index(label) if label in self.labels else self._first_of(int(named[1]))

    def end_of_chain(self, rank: int) -> int:
        """Whom the one waits for that a process waits for, and so on; ends where waits go round."""
        seen = {rank}
        while (awaited := self.awaited(rank)) is not None and awaited not in seen:
            seen.add(awaited)
            rank = awaited
        return rank if awaited is None else awaited

    def _first_of(self, stage: int) -> int | None:
        return self._stages.index(stage) if stage in self._stages else None
