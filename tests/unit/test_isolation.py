"""What a process does that was started again when the run was already over, and how links are made again."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import HashStore, Store

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.recovery.attempt import RunIsOver
from greedypipe.launch.recovery.incarnations import Incarnations
from greedypipe.launch.recovery.isolate import Rejoin, recovery_for
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.recovery.together import Together
from greedypipe.workers.links.patience import GivenUp, Patience
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.topics import INCARNATION, done_with, report_of
from tests.records import make_report

RANK = 1


def make_member(overrides: list[str], folder: Path) -> Member:
    """The process of stage 1 of 2, started again once."""
    plan, board = make_plan(load_config(None, overrides), 2), Board(HashStore(), 2)
    status = StageStatus(Seat(RANK, RANK), blocks=[RANK], pid=0, host="here", incarnation=1)
    return Member(plan, 0, HashStore(), board, status, folder)


@pytest.mark.parametrize(
    ("links", "over"),
    [
        ("fifo", lambda board: board.post(done_with(0), 0, True)),
        ("replay", lambda board: board.post(done_with(0), 0, True)),
    ],
)
def test_one_that_died_when_its_part_was_done_leaves(links: str, over: Callable[[Board], None], tmp_path: Path) -> None:
    overrides = ["model.name=mlp", "partition.blocks=2", "faults.policy=isolate", f"buffers.policy={links}"]
    member = make_member(overrides, tmp_path)
    recovery = recovery_for(member)
    over(member.board)
    with pytest.raises(RunIsOver):
        recovery.begin()


def test_the_ends_of_a_link_never_meet_twice_at_one_place(tmp_path: Path) -> None:
    member = make_member(["model.name=mlp", "partition.blocks=2", "faults.timeout_s=1"], tmp_path)
    made: list[tuple[int, str]] = []

    def make(store: Store, patience: Patience) -> str:
        if not made:
            # The peer comes back while this end waits for the one before.
            made.append((0, "missed"))
            member.board.post(INCARNATION, 0, 1)
            assert patience.is_over()
            raise GivenUp
        store.set("end", str(len(made)))
        made.append((member.board.read(INCARNATION)[0] or 0, "made"))
        return f"end {len(made)}"

    (route,) = member.plan.placement.routes_after(0)
    over = threading.Event()
    rejoin = Rejoin(member, Incarnations(member), route, route.sender, make, is_over=over.is_set)
    assert rejoin() == "end 2"
    with pytest.raises(TimeoutError, match=r"waited 1 s for stage 0 to come back"):
        rejoin()
    member.board.post(INCARNATION, 0, 2)
    assert rejoin() == "end 3"
    assert made == [(0, "missed"), (1, "made"), (2, "made")]
    assert [member.store.check([f"met{place}-1/end"]) for place in range(3)] == [False, True, True]
    over.set()
    with pytest.raises(RunIsOver):
        rejoin()


def test_rank_0_stays_until_the_newest_incarnation_of_every_rank_has_reported(tmp_path: Path) -> None:
    plan, board = (
        make_plan(load_config(None, ["model.name=mlp", "partition.blocks=2", "faults.timeout_s=1"]), 2),
        Board(HashStore(), 2),
    )
    leader = Member(plan, 0, HashStore(), board, StageStatus(Seat(0, 0), [0], 0, "here"), tmp_path)
    ending = Together(leader, Incarnations(leader))
    ending.report(make_report(0))
    board.post(INCARNATION, RANK, 1)
    board.post(report_of(0), RANK, make_report(RANK))
    with pytest.raises(TimeoutError, match=r"waited 1 s for stage 1 to end"):
        ending.stay(lambda: False)
    assert ending.stay(lambda: ending.restarts() == 1), "it is needed again"
    board.post(report_of(0), RANK, make_report(RANK, restarts=1))
    assert not ending.stay(lambda: True)


def test_the_others_stay_until_rank_0_lets_them_go(tmp_path: Path) -> None:
    member = make_member(["model.name=mlp", "partition.blocks=2", "faults.timeout_s=1"], tmp_path)
    ending = Together(member, Incarnations(member))
    assert ending.stay(lambda: True)
    for rank in range(2):
        member.board.post(report_of(0), rank, make_report(rank, restarts=rank))
    with pytest.raises(TimeoutError, match="stage 0 to end"):
        ending.stay(lambda: False)
    ending.let_go()
    assert not ending.stay(lambda: True)
