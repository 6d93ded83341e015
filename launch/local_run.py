"""Runs a whole pipeline as real processes of this host, without torchrun: a fork server, and a file as the store.

A process then starts in a tenth of a second instead of several, so that many short runs can be interleaved.
"""

import contextlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.distributed import FileStore

from launch.assemble import run_stage
from launch.attempts import Process
from launch.config import load_config
from launch.keeper import run_kept
from launch.preflight import make_plan
from launch.resume import Origin, find_origin
from launch.screen import Lines
from launch.supervisor import say_given_up
from workers.board import Board

FORKSERVER_PRELOAD = ["torch", "torch.distributed", "torch._dynamo", "launch.assemble", "sklearn.datasets"]


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: exit codes by rank, what each rank printed, and the run's folder."""

    exit_codes: list[int | None]
    printed: list[str]
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json."""
        return json.loads((self.folder / "summary.json").read_text())

    def records(self, stage: int) -> list[dict[str, Any]]:
        """The lines of metrics/stageK.jsonl about training steps, in order; of several replicas, the first one's."""
        path = self.folder / "metrics" / f"stage{stage}.jsonl"
        lines = (path if path.exists() else path.with_stem(f"stage{stage}.0")).read_text().splitlines()
        return [record for line in lines if "step" in (record := json.loads(line))]

    def steady_samples_per_s(self, batch_size: int, warmup_steps: int) -> list[float]:
        """Samples per second of every stage's last block, all over the same time: while every stage trains.

        That begins when the last stage has its first `warmup_steps` behind it and ends with the first stage's last
        record, so no rate is one of working off what others have sent ahead. With FIFO the least one is the pipeline's.
        Steps between two records are taken to be evenly spaced, so `logging.interval_steps` should be small against
        the run; an evaluation pass in between counts as time, so benchmarks evaluate at the end alone.

        Raises:
            ValueError: No such time is left.
        """
        stages = sorted({report["stage"] for report in self.summary["stages"]})
        steps, clocks = zip(*(self._progress(stage) for stage in stages), strict=True)
        begin_s = max(
            float(np.interp(warmup_steps, done, clock)) for done, clock in zip(steps, clocks, strict=True)
        )  # fmt: skip
        end_s = min(clock[-1] for clock in clocks)
        if end_s <= begin_s:
            raise ValueError(f"no time in which all stages train is left after {warmup_steps} steps")
        return [
            float(np.diff(np.interp([begin_s, end_s], clock, done))[0]) * batch_size / (end_s - begin_s)
            for done, clock in zip(steps, clocks, strict=True)
        ]

    def _progress(self, stage: int) -> tuple[list[int], list[float]]:
        """Steps done by a stage's last block, and when; without the record of what is left over before an evaluation,
        which is written after it."""
        records = self.records(stage)
        block = records[-1]["block"]
        mine = [one for one in records if one["block"] == block]
        regular = [one for one in mine if one["step"] % mine[0]["step"] == 0]
        return [one["step"] for one in regular], [one["unix_s"] for one in regular]


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
    config: str | None, overrides: list[str], rank: int, num_processes: int, folder: Path, goes_on: bool,
    enter: Callable[[int], None] | None,
) -> None:  # fmt: skip
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
            origin = partial(find_origin, None, plan, folder, screen.print) if again else partial(Origin, folder)
            here = (folder, origin) if rank == 0 else (None, None)
            return run_stage(plan, Process(rank, rank, *here, *stores, incarnation), screen)

        def give_up(reason: str) -> None:
            board = Board(FileStore(str(folder / "store"), -1), num_processes)
            say_given_up(board, plan.placement.seat_of(rank), reason)

        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(run_kept(plan.placement.seat_of(rank).name, plan.config.faults, work, give_up))


def _output(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.txt"
