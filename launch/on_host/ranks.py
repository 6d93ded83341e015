"""The ranks of one run as processes of this host, without torchrun: forks of the fork server, and a store at 127.0.0.1.

A rank then starts in a tenth of a second instead of several. To a rank everything looks as torchrun's agent would have it.
"""

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import NoReturn, Self

import torch
import yaml
from torch.distributed import PrefixStore

from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.host_limits import allow_open_files
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.process.environment import Environment, host_store
from greedypipe.launch.process.rank import run_rank, run_told
from greedypipe.launch.recovery.exit_codes import FAILED
from greedypipe.launch.recovery.life import Life
from greedypipe.launch.reporting.screen import make_screen
from greedypipe.workers.errors import with_traceback
from greedypipe.workers.lifeline import end_with_parent
from greedypipe.workers.output import escape_what_cannot_be_encoded
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import Beginning


@dataclass(frozen=True)
class Order:
    """What a launcher tells the ranks of a run. Picklable.

    Attributes:
        config: The resolved configuration, YAML.
        folder: The run's; exists.
        origin: As in `launch.process.rank.run_told`.
        prints_into_folder: Every rank prints into a file of the run's folder (`output_of`), not to this terminal.
        enter: As in `launch.process.rank.run_told`.
    """

    config: str
    folder: Path
    origin: Beginning | None
    num_processes: int
    prints_into_folder: bool = False
    enter: Callable[[int], None] | None = None


class Ranks:
    """The processes of an order. Leaving the context kills those that still run.

    They end with this process, however it ends; so does the store, which lives in it.

    Args:
        absent: Ranks that are never started.
    """

    def __init__(self, order: Order, absent: Collection[int] = ()) -> None:
        self._store, port = host_store()
        self.board = Board(PrefixStore(Environment.prefix(0), self._store), order.num_processes)
        process = multiprocessing.get_context("forkserver").Process
        present = [rank for rank in range(order.num_processes) if rank not in absent]
        self._processes = {rank: process(target=_run_rank, args=(order, rank, port)) for rank in present}

    def __enter__(self) -> Self:
        try:
            for process in self._processes.values():
                process.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            if process.pid is not None:
                process.kill()
                process.join()

    @property
    def exit_codes(self) -> dict[int, int | None]:
        """Exit codes of the ranks that were started: None while a rank runs, minus the signal if one killed it."""
        return {rank: process.exitcode for rank, process in self._processes.items()}

    @property
    def running(self) -> list[int]:
        """The ranks that have not ended."""
        return [rank for rank, code in self.exit_codes.items() if code is None]

    def wait(self, timeout_s: float) -> None:
        """Blocks until a rank that runs has ended, or the time is up."""
        connection.wait([self._processes[rank].sentinel for rank in self.running], timeout_s)


def output_of(folder: Path, rank: int) -> Path:
    """The file that a rank prints into where the order says so."""
    return folder / f"rank{rank}.txt"


def _run_rank(order: Order, rank: int, port: int) -> NoReturn:
    with _one_line(order, rank):
        end_with_parent()
        # A session of its own, as torchrun gives it: Ctrl-C reaches the launcher alone, which tells the run.
        os.setsid()
        if order.prints_into_folder:
            _print_into(output_of(order.folder, rank))
        escape_what_cannot_be_encoded()
        environment = Environment(rank, rank, order.num_processes, 0)
        os.environ |= environment.variables(port)
        torch.set_num_threads(1)
        plan = make_plan(RunConfig.model_validate(yaml.safe_load(order.config)), order.num_processes)
        allow_open_files(plan)
        screen = make_screen(plan.config.logging.console_interval_s)

        def work(life: Life) -> int:
            place = order.folder, order.origin
            return run_told(plan, environment, *place, life, lambda store: screen, order.enter)

        sys.exit(run_rank(plan, environment, work))


@contextlib.contextmanager
def _one_line(order: Order, rank: int) -> Iterator[None]:
    """Ends the process with one line where it fails before a supervisor watches over it."""
    try:
        yield
    except Exception as error:
        path = order.folder / "logs" / f"rank{rank}.traceback"
        print(f"greedypipe: rank {rank} failed: {with_traceback(error, path)}", file=sys.stderr, flush=True)
        sys.exit(FAILED)


def _print_into(path: Path) -> None:
    with path.open("w", encoding="utf-8") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True, encoding="utf-8")
