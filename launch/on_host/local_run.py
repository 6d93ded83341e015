"""Runs a whole pipeline as real processes of this host, without torchrun: a fork server, and a file as the store.

A process then starts in a tenth of a second instead of several, so that many short runs can be interleaved.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch.distributed import FileStore

from greedypipe.launch.checkpoints.resume import Origin, find_again
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.process.run_process import run_stage
from greedypipe.launch.recovery.keeper import run_kept
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.recovery.supervisor import say_given_up
from greedypipe.launch.reporting.screen import Lines
from greedypipe.workers.telemetry.board import Board

FORKSERVER_PRELOAD = [
    "torch",
    "torch.distributed",
    "torch._dynamo",
    "greedypipe.launch.process.run_process",
    "sklearn.datasets",
]


def run_pipeline(
    overrides: Sequence[str],
    num_processes: int,
    folder: Path,
    timeout_s: float = 60,
    absent: Sequence[int] = (),
    config: str | None = None,
    goes_on: bool = False,
    enter: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs a pipeline to its end; ranks that are still there after `timeout_s` are killed and have exit code -9.

    Args:
        overrides: Of the form section.key=value, upon `config`.
        folder: The run's; made here.
        absent: Ranks that are never started.
        config: A YAML file; None for the defaults.
        goes_on: The folder is one that an earlier run has left: go on from its newest complete checkpoint.
        enter: Called first in each process, with its rank, to move it to another place. Picklable.
    """
    folder.mkdir(exist_ok=goes_on)
    (folder / "store").unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    ranks = [
        context.Process(target=_run_rank, args=(config, list(overrides), rank, num_processes, folder, goes_on, enter))
        for rank in range(num_processes)
        if rank not in absent
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
    printed = [_output(folder, rank).read_text() for rank in range(num_processes) if rank not in absent]
    return Outcome([process.exitcode for process in ranks], printed, folder)


def _run_rank(
    config: str | None,
    overrides: list[str],
    rank: int,
    num_processes: int,
    folder: Path,
    goes_on: bool,
    enter: Callable[[int], None] | None,
) -> None:
    if enter:
        enter(rank)
    with _output(folder, rank).open("w", buffering=1) as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
        torch.set_num_threads(1)
        plan = make_plan(load_config(config, overrides), num_processes)
        screen = Lines(Console(file=output, width=120), plan.config.logging.console_interval_s)

        def work(incarnation: int) -> int:
            # A process that is killed leaves the file's count of users too high; nobody is to remove it but its owner.
            stores = [FileStore(str(folder / "store"), -1) for _ in range(2)]
            again = goes_on or incarnation > 0
            begin = partial(find_again, plan, folder, screen.print) if again else partial(Origin, folder)
            own = {"folder": folder, "find_origin": begin} if rank == 0 else {}
            return run_stage(Member.join(plan, rank, rank, stores, incarnation=incarnation, **own), screen)

        def give_up(reason: str) -> None:
            board = Board(FileStore(str(folder / "store"), -1), num_processes)
            say_given_up(board, plan.placement.seat_of(rank), reason)

        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(run_kept(plan.placement.seat_of(rank).name, plan.config.faults, work, give_up))


def _output(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.txt"
