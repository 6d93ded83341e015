"""Runs one process of a run from a plan, and leaves its results behind: the same under every launcher."""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch.distributed import Store

from launch.committer import Committer
from launch.config import dump_config
from launch.cutting import settle_cut
from launch.memory import reset_peak_memory
from launch.monitor import Monitor
from launch.preflight import Plan
from launch.resume import Origin, resumed_plan
from launch.stage_parts import Run, Stage
from launch.summary import summarise, write_summary
from launch.supervisor import Supervisor, host_name
from launch.tables import end_table, headline, result_lines, start_table
from launch.trace_file import write_trace
from launch.tracking import make_trackers
from workers.allocator import keep_freed_memory
from workers.board import Board, wait_for
from workers.status import StageStatus

REQUEUE = 75
"""Exit code of a run that has saved itself and wants to be started again (EX_TEMPFAIL of sysexits.h)."""


@dataclass(frozen=True)
class Process:
    """Which process of the run this one is.

    Attributes:
        origin: Where the run writes and begins, known to rank 0 alone; it tells the others.
        store: For the links; its calls may block.
        board_store: Another connection to the same store, for heartbeats, which must never stand behind a blocked call.
    """

    rank: int
    local_rank: int
    origin: Origin | None
    store: Store
    board_store: Store


def run_stage(plan: Plan, process: Process, console: Console) -> int:
    """Runs this process's stage to the end; ends the process if the run fails (see Supervisor).

    Returns:
        The exit code: 0, or REQUEUE where the run has saved itself because it was told to stop. Rank 0 returns when
        every process has reported.
    """
    started = time.perf_counter()
    reset_peak_memory()
    torch.set_num_threads(plan.config.placement.threads)
    keep_freed_memory()
    seat = plan.placement.seat_of(process.rank)
    board = Board(process.board_store, plan.placement.num_processes)
    origin = Origin.read(board.share("origin", process.origin.as_json() if process.origin else None))
    device = plan.placement.device_of(process.local_rank, plan.config.placement)
    status = StageStatus(seat, list(plan.placement.blocks_of(seat.stage)), os.getpid(), host_name())
    terminal = ExitStack()
    with Supervisor(board, status, plan.config.faults, stop_console=terminal.close, folder=origin.folder) as supervisor:
        plan, predicted = settle_cut(resumed_plan(plan, origin), board, status, device)
        run = Run(plan, origin, board, status)
        this = Stage(run, process.store, device, must_stop=supervisor.told_to_stop)
        if seat.rank == 0:
            _lead(run, this, console, terminal, predicted, started)
        else:
            report = this.run(lambda name, batch_id: None)
    if seat.rank > 0:
        # Nothing is asked of the store after this: its host may be gone as soon as it has all reports.
        board.post("report", seat.rank, report)
    return 0 if this.is_finished else REQUEUE


def _lead(
    run: Run, this: Stage, console: Console, terminal: ExitStack, predicted: dict[str, Any], started: float
) -> None:
    """Rank 0: runs like any other, shows the run to its user, and leaves its results behind."""
    folder, board = run.origin.folder, run.board
    with Committer(board, run.plan, folder) as committer:
        monitor = _open_monitor(run, console)
        terminal.callback(monitor.release_terminal)
        with monitor:
            board.post("report", 0, this.run(committer.expect))
            reports = _wait_for_reports(board, run.status, run.plan.config.faults.timeout_s)
    summary = summarise(
        reports, monitor.evaluations, time.perf_counter() - started, is_finished=this.is_finished, predicted=predicted,
        checkpoints=committer.counts(), began_at=run.origin.batch_id,
    )  # fmt: skip
    write_summary(folder, summary)
    write_trace(folder, board.read("trace"), list(run.plan.placement.seats()), [report["blocks"] for report in reports])
    console.print(end_table(summary))
    console.print(result_lines(summary, folder), highlight=False, soft_wrap=True, markup=False)


def _open_monitor(run: Run, console: Console) -> Monitor:
    plan, folder = run.plan, run.origin.folder
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(plan.config))
    console.print(headline(plan), highlight=False)
    console.print(start_table(plan))
    trackers = make_trackers(plan.config.logging, folder, plan.config.model_dump(mode="json"))
    return Monitor(run.board, plan, run.origin, trackers, console)


def _wait_for_reports(board: Board, status: StageStatus, timeout_s: float) -> list[dict[str, Any]]:
    status.now("waiting for the other processes' reports")

    def missing() -> str:
        return f"the reports of ranks {[rank for rank, report in enumerate(board.read('report')) if report is None]}"

    wait_for(lambda: board.is_complete("report") or None, timeout_s, missing)
    return [report for report in board.read("report") if report]
