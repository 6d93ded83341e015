"""Who is named when a wait has come to its deadline: the process at the end of the chain, not the neighbour."""

from pathlib import Path

from greedypipe.launch.recovery import leaving
from greedypipe.launch.recovery.standstill import culprit_of, write_stacks
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.records import StageRow
from tests.records import make_row

LABELS = ["0", "1", "2"]


def row(stage: int, activity: Activity, peer: str = "", for_s: float = 8.0) -> StageRow:
    return make_row(activity, peer, seat=Seat(stage, stage), name=f"stage {stage}", blocks=[stage], for_s=for_s)


def test_the_last_one_of_a_chain_of_waits_is_named_with_what_it_was_doing() -> None:
    rows = [row(0, Activity.WAIT_ROOM, "stage 1"), row(1, Activity.WAIT_ROOM, "stage 2"), row(2, Activity.SAVE)]
    for waiting in (0, 1):
        cause = culprit_of(rows, LABELS, waiting)
        assert cause and cause.kind == "hung"
        assert cause.message.startswith("stage 2 (block 2, process ") and "stands still: saving for 8 s" in cause.message


def test_a_process_that_has_not_begun_is_named() -> None:
    cause = culprit_of([row(0, Activity.CONNECT, "stage 1"), None, None], LABELS, 0)
    assert cause and cause.message.startswith("stage 1 has not begun: stage 0 is waiting for stage 1")


def test_nobody_is_named_who_moves_or_where_a_process_waits_for_none() -> None:
    assert (
        culprit_of([row(0, Activity.WAIT_ROOM, "stage 1"), row(1, Activity.COMPUTING, for_s=0.1), None], LABELS, 0) is None
    )
    assert culprit_of([row(0, Activity.WAIT_REPORTS), None, None], LABELS, 0) is None


def test_stacks_are_written_and_a_disk_that_refuses_or_hangs_is_no_error(tmp_path: Path) -> None:
    assert write_stacks(tmp_path / "logs" / "stage0.stacks")
    assert "test_stacks_are_written" in (tmp_path / "logs" / "stage0.stacks").read_text()
    assert not write_stacks(tmp_path / "logs" / "stage0.stacks" / "no folder" / "stacks")
    assert not leaving.within(lambda: leaving.threading.Event().wait(30), 0.1)
