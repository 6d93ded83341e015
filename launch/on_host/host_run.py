"""Runs a plan on this host and stays with it to its end: what torchrun's agent does for the processes of several hosts."""

import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import yaml
from rich.console import Console

from greedypipe.launch.checkpoints.resume import Origin, find_origin
from greedypipe.launch.config.loader import DEFAULT_CONFIG, dump_config, load_config
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.on_host.ranks import Order, Ranks
from greedypipe.launch.planning.host_limits import check_host
from greedypipe.launch.planning.run_plan import Plan, make_plan, natural_processes
from greedypipe.launch.recovery.exit_codes import FAILED, INTERRUPTED, REQUEUE, WRONG_CONFIGURATION
from greedypipe.launch.recovery.keeper import ending
from greedypipe.launch.recovery.stopping import StopRequest, at_once, hearing
from greedypipe.launch.recovery.supervisor import GRACE_S, say_given_up
from greedypipe.workers.telemetry.records import Beginning
from greedypipe.workers.telemetry.topics import FOLDER, STOP

POLL_S = 0.1
NAME_S = GRACE_S + 1.0
"""How long the other ranks look for the cause of a loss before the launcher names what it has seen."""
LEAVE_S = NAME_S + 3.0
"""How long ranks may take to end when one of them has failed, or when they are to end at once."""


def settle(
    config: str | None, overrides: Sequence[str], stages: int | None, resume: str | None, say: Callable[[str], None]
) -> tuple[Plan, Origin]:
    """Checks everything about a run that can be wrong, and claims its folder; starts no process.

    Args:
        config: A YAML file; None for the bundled digits.
        stages: Processes; None for one per block, with its replicas.
        resume, say: As `launch.checkpoints.resume.find_origin`.

    Raises:
        ConfigError: Something is missing, wrong or impossible.
    """
    loaded = load_config(config or DEFAULT_CONFIG, overrides)
    plan = make_plan(loaded, stages or natural_processes(loaded))
    check_host(plan, plan.placement.seats())
    return plan, find_origin(resume, plan, None, say)


def run_on_host(plan: Plan, origin: Origin) -> int:
    """Runs a plan with all its processes on this host; blocks. Call it in the main thread.

    Rank 0 shows the run on this process's terminal. A signal has the run save itself and end, a second one ends it at once
    (launch.recovery.stopping). Leaves no process behind, whatever happens.

    Returns:
        The exit code, see `worst`.
    """
    order = Order(dump_config(plan.config), origin.folder, origin.note(), plan.placement.num_processes)
    ranks = Ranks(order)
    request = StopRequest()
    with hearing(request.hear), ranks:
        _Agent(plan, origin, ranks, request).watch()
        if sys.stdout.isatty():
            _tidy_terminal(ranks)
    code = worst(ranks.exit_codes.values())
    return INTERRUPTED if code and request.is_urgent else code


def run_ordered(config: str, origin: dict[str, Any], num_processes: int) -> int:
    """As `run_on_host`, of what `settle` has found elsewhere: the resolved configuration, and a `Beginning`'s fields."""
    plan = make_plan(RunConfig.model_validate(yaml.safe_load(config)), num_processes)
    return run_on_host(plan, Origin.read(Beginning(**origin)))


def worst(codes: Collection[int | None]) -> int:
    """One exit code for the run from those of its ranks, of which one that was killed has a negative one."""
    for code in (WRONG_CONFIGURATION, INTERRUPTED):
        if code in codes:
            return code
    if set(codes) - {0, REQUEUE}:
        return FAILED
    return REQUEUE if REQUEUE in codes else 0


def _tidy_terminal(ranks: Ranks) -> None:
    """Shows the cursor, which a killed rank 0 leaves hidden, and prints the cause again: where another rank has printed it
    in the middle of rank 0's table, it was erased with the table."""
    Console(file=sys.stdout).show_cursor()
    if cause := ranks.board.cause():
        print(f"greedypipe: {cause.message}", file=sys.stderr, flush=True)


class _Agent:
    """Watches the ranks of one run, and tells them what this process is asked for."""

    def __init__(self, plan: Plan, origin: Origin, ranks: Ranks, request: StopRequest) -> None:
        self._plan = plan
        self._ranks = ranks
        self._request = request
        self._has_told = False
        self._since: float | None = None
        # Whoever names a cause notes it in the run's folder, also where rank 0 has not come that far.
        ranks.board.share(FOLDER, str(origin.folder.absolute()))

    def watch(self) -> None:
        """Blocks until all ranks have ended, or have had their time to."""
        while self._ranks.running and self._seconds_lost() < LEAVE_S:
            self._ranks.wait(POLL_S)
            self._tell()
            if self._seconds_lost() > NAME_S:
                self._name_the_lost()
        self._name_the_lost()

    def _tell(self) -> None:
        """Puts on the board, where also those find it that are only about to begin, that the run is to stop.

        One rank that was told so before it could tell the others leaves with REQUEUE.
        """
        if not self._has_told and (self._request.is_made or REQUEUE in self._ranks.exit_codes.values()):
            self._ranks.board.post(STOP, 0, True)
            self._has_told = True
        if self._request.is_urgent and not self._ranks.board.cause():
            self._ranks.board.post_cause(0, at_once(self._request.signal))

    def _seconds_lost(self) -> float:
        """Since the run came to its end before its time."""
        if self._since is None and (self._lost() or self._request.is_urgent):
            self._since = time.monotonic()
        return 0.0 if self._since is None else time.monotonic() - self._since

    def _lost(self) -> dict[int, int]:
        codes = self._ranks.exit_codes
        return {rank: code for rank, code in codes.items() if code not in (None, 0, REQUEUE)}

    def _name_the_lost(self) -> None:
        """Names the rank that was lost, where none of the others has found out."""
        if self._request.is_urgent or self._ranks.board.cause():
            return
        for rank, code in self._lost().items():
            say_given_up(self._ranks.board, self._plan.placement.seat_of(rank), ending(code))
            return
