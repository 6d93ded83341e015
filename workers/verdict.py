"""Who holds a pipeline up: a stage that computes for too long, or one that starves because of another."""

import re
from collections.abc import Sequence
from typing import Any

SLOW_S = 5.0
"""Seconds on one batch, or of waiting, from which on a stage is worth a remark."""

Row = dict[str, Any]


def judge(rows: Sequence[Row | None], now_s: float) -> list[str]:
    """One remark per stage on what it does (workers.status.StageStatus.row).

    "hangs" is said only of a stage that computes itself or gives no sign of life. One that waits is said to starve, or to
    wait for room, because of the stage at the end of the chain of waits.

    Args:
        now_s: Unix time.
    """
    return [_remark(rows, stage, now_s) for stage in range(len(rows))]


def _remark(rows: Sequence[Row | None], stage: int, now_s: float) -> str:
    row = rows[stage]
    if row is None:
        return "has not begun"
    if row["doing"] == "done":
        return "has ended"
    if now_s - row["unix_s"] > SLOW_S:
        return f"hangs: no sign of life for {now_s - row['unix_s']:.0f} s"
    if row["for_s"] < SLOW_S:
        return "is well"
    awaited = _awaited(row, stage)
    if awaited is None:
        return f"hangs: on one batch for {row['for_s']:.0f} s" if row["doing"] == "computing" else row["doing"]
    culprit = _end_of_chain(rows, stage)
    verb = "waits" if awaited > stage else "starves"
    return f"{verb} because of stage {culprit} ({_doing(rows[culprit])})"


def _doing(row: Row | None) -> str:
    return "has not begun" if row is None else f"{row['doing']} for {row['for_s']:.0f} s"


def _awaited(row: Row, stage: int) -> int | None:
    """The stage that a waiting stage waits for; None where it does not wait for one."""
    if row["doing"] == "waiting for room":
        return stage + 1
    named = re.match(r"waiting for stage (\d+)", row["doing"])
    return int(named[1]) if named else None


def _end_of_chain(rows: Sequence[Row | None], stage: int) -> int:
    seen = {stage}
    while (row := rows[stage]) and (awaited := _awaited(row, stage)) is not None and awaited < len(rows):
        if awaited in seen:
            return awaited
        seen.add(awaited)
        stage = awaited
    return stage
