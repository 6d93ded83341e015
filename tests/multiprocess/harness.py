"""Runs a whole pipeline as real processes, without torchrun: forkserver, and a file as the rendezvous store."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.distributed import FileStore

from launch.assemble import Process, run_stage
from launch.config import load_config
from launch.export import network_state
from launch.preflight import make_plan

TINY = (
    "data.name=digits", "data.batch_size=128", "model.name=vgg8b", "model.width=0.1", "training.epochs=1",
    "optimizer.lr=0.05", "faults.timeout_s=30",
)  # fmt: skip
"""12 steps, the last of 30 samples, and an evaluation pass whose last batch is uneven too."""


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: exit codes by rank, what each rank printed, and the run's folder."""

    exit_codes: list[int | None]
    printed: list[str]
    folder: Path

    def state(self) -> dict[str, Tensor]:
        """The exported network."""
        return network_state(self.folder)


def run_pipeline(
    overrides: Sequence[str], num_processes: int, tmp_path: Path, timeout_s: float = 60, absent: Sequence[int] = ()
) -> Outcome:
    """Runs a pipeline to its end; ranks that are still there after `timeout_s` are killed and have exit code -9.

    Ranks in `absent` are never started.
    """
    folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    ranks = [
        context.Process(target=_run_rank, args=(list(overrides), rank, num_processes, folder))
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


def assert_equal_states(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Every tensor has the same bits, under the same names in the same order."""
    assert list(left) == list(right)
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def _run_rank(overrides: list[str], rank: int, num_processes: int, folder: Path) -> None:
    with _output(folder, rank).open("w", buffering=1) as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
        plan = make_plan(load_config(None, overrides), num_processes)
        stores = [FileStore(str(folder / "store"), num_processes) for _ in range(2)]
        process = Process(rank, rank, folder if rank == 0 else None, *stores)
        with contextlib.suppress(KeyboardInterrupt):
            run_stage(plan, process, Console(file=output, width=120))


def _output(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.txt"
