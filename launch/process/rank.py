"""A rank of a run that whoever started it has told where to write, where to begin and how to meet the others."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin, find_again
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.environment import Environment
from greedypipe.launch.process.run_process import run_stage
from greedypipe.launch.recovery.life import Life
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.recovery.supervisor import say_given_up
from greedypipe.launch.reporting.screen import Screen
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import Beginning


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
    stores = environment.connect(2, plan.config.faults.timeout_s)
    if enter:
        enter(environment.rank)
    begin = partial(find_again, plan, folder) if origin is None or life.incarnation else partial(Origin.read, origin)
    leads = environment.rank == 0
    member = Member.join(
        plan,
        environment.rank,
        environment.local_rank,
        stores,
        folder=folder if leads else None,
        find_origin=begin if leads else None,
        life=life,
    )
    return run_stage(member, open_screen(stores[1]))


def give_up(plan: Plan, environment: Environment, reason: str) -> None:
    """Ends the run: this rank's child will not come back."""
    (store,) = environment.connect(1, plan.config.faults.timeout_s)
    say_given_up(Board(store, plan.placement.num_processes), plan.placement.seat_of(environment.rank), reason)
