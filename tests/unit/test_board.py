"""The status board, over the stores that runs use."""

from pathlib import Path

import pytest
from torch.distributed import FileStore, HashStore, Store

from greedypipe.workers.telemetry.board import Board, wait_for


@pytest.fixture(params=["hash", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return HashStore() if request.param == "hash" else FileStore(str(tmp_path / "store"), 2)


def test_entries_are_read_by_stage_and_missing_ones_are_none(store: Store) -> None:
    board = Board(store, 2)
    board.post("status", 1, {"step": 3})
    assert board.read("status") == [None, {"step": 3}]
    assert not board.is_complete("status")
    board.post("status", 0, {"step": 4})
    assert board.is_complete("status")


def test_all_rows_asks_for_a_true_value_in_every_entry(store: Store) -> None:
    board = Board(store, 2)
    board.post("status", 0, {"finished": True})
    assert not board.all_rows("status", "finished")
    board.post("status", 1, {"finished": False})
    assert not board.all_rows("status", "finished")
    board.post("status", 1, {"finished": True})
    assert board.all_rows("status", "finished")


def test_the_first_cause_stays_and_only_its_reporter_learns_that_it_was_first(store: Store) -> None:
    board = Board(store, 2)
    assert board.cause() is None
    assert board.post_cause(1, {"message": "first"})
    assert not board.post_cause(0, {"message": "second"})
    found = board.cause()
    assert found is not None and found["message"] == "first"
    assert not board.post_cause(0, found), "one who only repeats a cause has not found it"


def test_a_shared_value_is_the_one_that_was_set(store: Store) -> None:
    assert Board(store, 2).share("folder", "here") == "here"
    assert Board(store, 2).share("folder") == "here"


def test_waiting_ends_with_what_is_found_or_names_whom_it_waited_for() -> None:
    answers = iter([None, None, "there"])
    assert wait_for(lambda: next(answers), 5, lambda: "stage 1") == "there"
    with pytest.raises(TimeoutError, match=r"waited 0\.05 s for stage 1"):
        wait_for(lambda: None, 0.05, lambda: "stage 1")
