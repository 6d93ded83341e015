"""What a process does that was started again when the run was already over."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import HashStore

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.recovery.attempt import RunIsOver
from greedypipe.launch.recovery.isolate import recovery_for
from greedypipe.launch.recovery.member import Member
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.topics import done_with, report_of
from tests.records import make_report

RANK = 1


@pytest.mark.parametrize(
    ("links", "over"),
    [
        ("fifo", lambda board: board.post(done_with(0), 0, True)),
        ("replay", lambda board: board.post(report_of(0), RANK, make_report(RANK))),
    ],
    ids=["everybody has been let go", "it has reported itself"],
)
def test_one_that_died_when_its_part_was_done_leaves(links: str, over: Callable[[Board], None], tmp_path: Path) -> None:
    overrides = ["model.name=mlp", "partition.blocks=2", "faults.policy=isolate", f"buffers.policy={links}"]
    plan, board = make_plan(load_config(None, overrides), 2), Board(HashStore(), 2)
    seat = Seat(RANK, RANK)
    status = StageStatus(seat, blocks=[RANK], pid=0, host="here", incarnation=1)
    recovery = recovery_for(Member(plan, 0, HashStore(), board, status, tmp_path))
    over(board)
    with pytest.raises(RunIsOver):
        recovery.begin()
