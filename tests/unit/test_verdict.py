"""A stage that hangs is told apart from those that starve because of it."""

from collections.abc import Sequence
from typing import Any

from greedypipe.workers.telemetry import diagnosis as verdict

NOW_S = 1000.0


def row(doing: str, for_s: float, silent_s: float = 0.2) -> dict[str, Any]:
    return {"doing": doing, "for_s": for_s, "unix_s": NOW_S - silent_s}


def judge(rows: Sequence[dict[str, Any] | None]) -> list[str]:
    return verdict.judge(rows, [str(stage) for stage in range(len(rows))], NOW_S)


def test_one_that_hangs_is_named_by_all_that_wait_for_it() -> None:
    rows = [row("waiting for room", 29), row("waiting for room", 30), row("computing", 31), row("waiting for stage 2", 30)]
    assert judge(rows) == [
        "waits because of stage 2 (computing for 31 s)",
        "waits because of stage 2 (computing for 31 s)",
        "hangs: on one batch for 31 s",
        "starves because of stage 2 (computing for 31 s)",
    ]


def test_short_waits_are_no_matter() -> None:
    assert judge([row("computing", 1), row("waiting for stage 0", 0.5), row("done", 60), None]) == [
        "is well",
        "is well",
        "has ended",
        "has not begun",
    ]


def test_one_that_has_not_begun_is_the_end_of_the_chain() -> None:
    rows = [row("waiting for stage 1 to connect", 9), None, row("waiting for stage 1 to connect", 8)]
    assert judge(rows)[0] == "waits because of stage 1 (has not begun)"
    assert judge(rows)[2] == "starves because of stage 1 (has not begun)"


def test_those_that_wait_for_each_other_are_no_endless_chain() -> None:
    assert judge([row("waiting for stage 1", 9), row("waiting for stage 0", 9)])[0].startswith("waits because of")


def test_a_wait_for_the_data_is_said_as_it_is() -> None:
    assert judge([row("waiting for data", 9)]) == ["waiting for data"]


def test_one_that_gives_no_sign_of_life_hangs_whatever_it_was_doing() -> None:
    stopped = [row("waiting for room", 9), row("waiting for stage 0", 0.1, silent_s=9)]
    assert judge(stopped)[1] == "hangs: no sign of life for 9 s"
