"""A rank of a run that whoever started it has told where to write, where to begin and how to meet the others."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin, find_origin
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.environment import Environment
from greedypipe.launch.process.run_process import run_stage
from greedypipe.launch.recovery.member import Process
from greedypipe.launch.recovery.supervisor import say_given_up
from greedypipe.launch.reporting.screen import Screen
from greedypipe.workers.telemetry.board import Board


def run_told(
    plan: Plan,
    environment: Environment,
    folder: Path,
    origin: str | None,
    incarnation: int,
    open_screen: Callable[[Store], Screen],
    enter: Callable[[int], None] | None = None,
) -> int:
    """Runs this rank's stage to its end. Blocks; the process ends with it where the run fails.

    Args:
        folder: The run's.
        origin: Where the run begins, as `Origin.as_json`; None: at the newest complete checkpoint of its folder, where a
            rank that has been started again alone begins in any case.
        incarnation: How often this rank has been started again alone.
        open_screen: Makes rank 0's screen; is given a store.
        enter: Called with the rank when it has connected to the store, to move it to another place.

    Returns:
        The exit code.
    """
    store, board_store = environment.connect(2, plan.config.faults.timeout_s)
    if enter:
        enter(environment.rank)
    if incarnation or origin is None:
        begin = partial(find_origin, None, plan, folder, partial(print, flush=True))
    else:
        begin = partial(Origin.read, origin)
    here = (folder, begin) if environment.rank == 0 else (None, None)
    process = Process(environment.rank, environment.local_rank, *here, store, board_store, incarnation)
    return run_stage(plan, process, open_screen(board_store))


def give_up(plan: Plan, environment: Environment, reason: str) -> None:
    """Ends the run: this rank's child will not come back."""
    (store,) = environment.connect(1, plan.config.faults.timeout_s)
    say_given_up(Board(store, plan.placement.num_processes), plan.placement.seat_of(environment.rank), reason)
