"""A stage that hangs is told apart from those that starve because of it."""

from collections.abc import Sequence

from greedypipe.workers.telemetry import diagnosis as verdict
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.records import StageRow
from tests.records import make_row

NOW_S = 1000.0


def row(activity: Activity, for_s: float, peer: str = "", silent_s: float = 0.2) -> StageRow:
    return make_row(activity, peer, for_s=for_s, unix_s=NOW_S - silent_s)


def judge(rows: Sequence[StageRow | None], labels: Sequence[str] = ("0", "1", "2", "3")) -> list[str]:
    return verdict.judge(rows, labels[: len(rows)], NOW_S)


def test_one_that_hangs_is_named_by_all_that_wait_for_it() -> None:
    rows = [
        row(Activity.WAIT_ROOM, 29, "stage 1"),
        row(Activity.WAIT_ROOM, 30, "stage 2"),
        row(Activity.COMPUTING, 31),
        row(Activity.WAIT_INPUT, 30, "stage 2"),
    ]
    assert judge(rows) == [
        "waits because of stage 2 (computing for 31 s)",
        "waits because of stage 2 (computing for 31 s)",
        "hangs: on one batch for 31 s",
        "starves because of stage 2 (computing for 31 s)",
    ]


def test_short_waits_are_no_matter() -> None:
    rows = [row(Activity.COMPUTING, 1), row(Activity.WAIT_INPUT, 0.5, "stage 0"), row(Activity.DONE, 60), None]
    assert judge(rows) == ["ok", "ok", "has ended", "has not begun"]


def test_one_that_has_not_begun_is_the_end_of_the_chain() -> None:
    rows = [row(Activity.CONNECT, 9, "stage 1"), None, row(Activity.CONNECT, 8, "stage 1")]
    assert judge(rows)[0] == "waits because of stage 1 (has not begun)"
    assert judge(rows)[2] == "starves because of stage 1 (has not begun)"


def test_those_that_wait_for_each_other_are_no_endless_chain() -> None:
    rows = [row(Activity.WAIT_INPUT, 9, "stage 1"), row(Activity.WAIT_INPUT, 9, "stage 0")]
    assert judge(rows)[0].startswith("waits because of")


def test_a_wait_for_the_data_is_said_as_it_is() -> None:
    assert judge([row(Activity.WAIT_DATA, 9)]) == ["waiting for data"]


def test_a_wait_for_a_stage_is_one_for_its_first_replica_unless_it_names_another() -> None:
    rows = [row(Activity.WAIT_ROOM, 9, "stage 1"), row(Activity.COMPUTING, 8), row(Activity.COMPUTING, 7)]
    labels = ["0", "1.0", "1.1"]
    assert judge(rows, labels)[0] == "waits because of stage 1.0 (computing for 8 s)"
    rows[0] = row(Activity.CONNECT, 9, "stage 1.1")
    assert judge(rows, labels)[0] == "waits because of stage 1.1 (computing for 7 s)"


def test_one_that_gives_no_sign_of_life_hangs_whatever_it_was_doing() -> None:
    stopped = [row(Activity.WAIT_ROOM, 9, "stage 1"), row(Activity.WAIT_INPUT, 0.1, "stage 0", silent_s=9)]
    assert judge(stopped)[1] == "hangs: no sign of life for 9 s"
