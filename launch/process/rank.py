"""A rank whose launcher has settled where it writes, where it begins and how it finds the others."""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin, find_again
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.environment import Environment
from greedypipe.launch.process.run_process import run_stage
from greedypipe.launch.recovery.keeper import Voice, run_kept
from greedypipe.launch.recovery.life import Life
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.recovery.stopping import RankSignals
from greedypipe.launch.recovery.supervisor import say_given_up
from greedypipe.launch.reporting.screen import Screen
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import host_name
from greedypipe.workers.telemetry.records import Beginning, KeeperRow
from greedypipe.workers.telemetry.topics import KEEPER


def run_told(
    plan: Plan,
    environment: Environment,
    folder: Path,
    origin: Beginning | None,
    life: Life,
    open_screen: Callable[[Store], Screen],
    enter: Callable[[int], None] | None = None,
) -> int:
    """Runs this rank's stage to its end. Blocks; the process ends with it where the run fails.

    Args:
        folder: The run's.
        origin: Where the run begins, as `Origin.note`; None: at the newest complete checkpoint of its folder, where a
            rank that has been started again alone begins in any case.
        life: Of this rank.
        open_screen: Makes rank 0's screen; is given a store.
        enter: Called with the rank when it has connected to the store, to move it to another place.

    Returns:
        The exit code.
    """
    leads = environment.rank == 0
    with RankSignals(speaks=leads) as signals:
        stores = environment.connect(2, plan.config.faults.timeout_s)
        if enter:
            enter(environment.rank)
        begin = partial(find_again, plan, folder) if origin is None or life.incarnation else partial(Origin.read, origin)
        member = Member.join(
            plan,
            environment.rank,
            environment.local_rank,
            stores,
            folder=folder if leads else None,
            find_origin=begin if leads else None,
            life=life,
        )
        return run_stage(member, open_screen(stores[1]), signals)


class KeeperVoice(Voice):
    """What the keeper of a rank says on the run's board, over a connection of its own each time."""

    def __init__(self, plan: Plan, environment: Environment) -> None:
        self._plan = plan
        self._environment = environment
        self._seat = plan.placement.seat_of(environment.rank)

    def begin(self) -> None:
        self._post(os.getpid())

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._post(0)

    def give_up(self, reason: str) -> None:
        say_given_up(self._board(), self._seat, reason)

    def _post(self, pid: int) -> None:
        rank = self._seat.rank
        self._board().post(KEEPER, rank, KeeperRow(rank, self._seat.name, host_name(), pid))

    def _board(self) -> Board:
        (store,) = self._environment.connect(1, self._plan.config.faults.timeout_s)
        return Board(store, self._plan.placement.num_processes)


def run_rank(plan: Plan, environment: Environment, work: Callable[[Life], int]) -> int:
    """Does the work of a rank as `faults.policy` says, see `launch.recovery.keeper.run_kept`; returns the exit code."""
    voice = KeeperVoice(plan, environment)
    return run_kept(plan.placement.seat_of(environment.rank).name, plan.config.faults, work, voice)
