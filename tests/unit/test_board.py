"""The status board, over the stores that runs use."""

import math
from pathlib import Path

import pytest
from torch.distributed import FileStore, HashStore, PrefixStore, Store

from greedypipe.workers.telemetry.board import Board, wait_for
from greedypipe.workers.telemetry.records import Cause, Victim
from greedypipe.workers.telemetry.topics import (
    CAUSE,
    CUT,
    FOLDER,
    INCARNATION,
    ORIGIN,
    PASSED,
    RUN,
    STATUS,
    STOP,
    TRACE,
    checkpoint_of,
    done_with,
    evaluation_of,
    origin_of,
    ready_for,
    report_of,
)
from tests.records import make_row


@pytest.fixture(params=["hash", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return HashStore() if request.param == "hash" else FileStore(str(tmp_path / "store"), 2)


def test_entries_are_read_by_stage_and_missing_ones_are_none(store: Store) -> None:
    board = Board(store, 2)
    rows = [make_row(step=4), make_row(step=3, loss={2: 1.5}, accuracy={2: 0.5})]
    board.post(STATUS, 1, rows[1])
    assert board.read(STATUS) == [None, rows[1]] and board.posted(STATUS) == [rows[1]]
    assert not board.is_complete(STATUS)
    board.post(STATUS, 0, rows[0])
    assert board.is_complete(STATUS) and board.read(STATUS) == rows


def test_a_number_that_is_none_comes_back_as_it_was_sent(store: Store) -> None:
    board = Board(store, 1)
    board.post(STATUS, 0, make_row(loss={0: math.nan, 1: -math.inf}))
    (row,) = board.posted(STATUS)
    assert math.isnan(row.loss[0]) and row.loss[1] == -math.inf


def test_an_entry_may_be_false_and_is_there_nevertheless(store: Store) -> None:
    board = Board(store, 2)
    board.post(INCARNATION, 0, 0)
    assert board.read(INCARNATION) == [0, None] and board.posted(INCARNATION) == [0]


def test_every_topic_has_a_name_of_its_own() -> None:
    made = [make(1) for make in (origin_of, ready_for, done_with, report_of, evaluation_of)]
    names = [
        topic.name
        for topic in (STATUS, STOP, CAUSE, FOLDER, ORIGIN, INCARNATION, TRACE, CUT, RUN, PASSED, checkpoint_of("1"), *made)
    ]
    assert len(set(names)) == len(names)


def test_all_rows_asks_every_entry(store: Store) -> None:
    board = Board(store, 2)
    board.post(STATUS, 0, make_row(finished=True))
    assert not board.all_rows(STATUS, lambda row: row.finished)
    board.post(STATUS, 1, make_row(finished=False))
    assert not board.all_rows(STATUS, lambda row: row.finished)
    board.post(STATUS, 1, make_row(finished=True))
    assert board.all_rows(STATUS, lambda row: row.finished)


def test_the_first_cause_stays_and_only_its_reporter_learns_that_it_was_first(store: Store) -> None:
    board = Board(store, 2)
    assert board.cause() is None
    assert board.post_cause(1, Cause("died", "first", kill=Victim(1, 0)))
    assert not board.post_cause(0, Cause("died", "second"))
    found = board.cause()
    assert found == Cause("died", "first", kill=Victim(1, 0), reported_by=1)
    assert not board.post_cause(0, found), "one who only repeats a cause has not found it"


def test_a_shared_value_is_the_one_that_was_set(store: Store) -> None:
    assert Board(store, 2).share(FOLDER, "here") == "here"
    assert Board(store, 2).share(FOLDER) == "here"


def test_waiting_ends_with_what_is_found_or_names_whom_it_waited_for() -> None:
    answers = iter([None, None, "there"])
    assert wait_for(lambda: next(answers), 5, lambda: "stage 1") == "there"
    with pytest.raises(TimeoutError, match=r"waited 0\.05 s for stage 1"):
        wait_for(lambda: None, 0.05, lambda: "stage 1")


@pytest.mark.parametrize(
    "text",
    [
        b"no json",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 10_000,
        STATUS.write(make_row()).replace('"step":0', '"step":1' + "0" * 400).encode(),
        STATUS.write(make_row()).replace('"step":0', '"step":"many"').encode(),
        STATUS.write(make_row()).replace('"blocks":[0]', '"blocks":[]').encode(),
    ],
    ids=["no JSON", "no text", "a list", "nothing", "deep", "huge", "another type", "no blocks"],
)
def test_an_entry_that_cannot_be_read_counts_as_absent_and_is_reported_once_in_a_run(
    text: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    store = HashStore()
    boards = [Board(store, 2), Board(store, 2)]
    boards[0].post(STATUS, 0, make_row())
    PrefixStore("board", store).set("status/1", text)
    for board in boards * 2:
        assert board.read(STATUS)[1] is None and board.complete(STATUS) is None
        assert not board.all_rows(STATUS, lambda row: True)
    (line,) = capfd.readouterr().err.splitlines()
    assert "entry under 'status/1' that cannot be read and is ignored: got " in line and len(line) < 400
    boards[0].post(STATUS, 1, make_row())
    assert boards[1].complete(STATUS)


def test_a_cause_that_cannot_be_read_hides_none(capfd: pytest.CaptureFixture[str]) -> None:
    store = HashStore()
    PrefixStore("board", store).set("cause", "no json")
    assert Board(store, 2).cause() is None
    assert Board(store, 2).post_cause(1, Cause("died", "first"))
    assert Board(store, 2).cause() == Cause("died", "first", reported_by=1)


def test_all_agree_on_what_the_first_one_proposes(store: Store) -> None:
    assert [Board(store, 2).agree(RUN, proposal) for proposal in ("one", "other")] == ["one", "one"]
    PrefixStore("board", store).set("run", "[")
    with pytest.raises(ValueError, match="holds no run that can be read"):
        Board(store, 2).agree(RUN, "third")
