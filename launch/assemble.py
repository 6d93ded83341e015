"""Runs one process of a run from a plan, and leaves its results behind: the same under every launcher."""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from launch.attempts import Attempt, Member, Policy, Process, RunIsOver
from launch.committer import Committer
from launch.config import dump_config
from launch.cutting import settle_cut
from launch.faults import REQUEUE
from launch.isolation import policy_for
from launch.memory import reset_peak_memory
from launch.monitor import Monitor
from launch.preflight import Plan, make_plan
from launch.resume import resumed_plan
from launch.screen import Screen
from launch.stage_parts import Run, Stage
from launch.summary import summarise, write_summary
from launch.supervisor import Supervisor, host_name
from launch.tables import end_table, headline, result_lines, start_table
from launch.trace_file import write_trace
from launch.tracking import make_trackers
from workers.allocator import keep_freed_memory
from workers.board import Board
from workers.status import StageStatus


def run_stage(plan: Plan, process: Process, screen: Screen) -> int:
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
    folder = Path(board.share("folder", str(process.folder.absolute()) if process.folder else None))
    blocks = list(plan.placement.blocks_of(seat.stage))
    status = StageStatus(seat, blocks, os.getpid(), host_name(), incarnation=process.incarnation)
    terminal = ExitStack()
    with Supervisor(board, status, plan.config.faults, stop_console=terminal.close, folder=folder) as supervisor:
        policy = policy_for(Member(process, plan, board, status, folder))
        go = Go(plan, process.local_rank, policy, board, status, screen, terminal, started)
        try:
            code, report = _attempt_until_done(go, supervisor)
        except RunIsOver:
            return 0
    policy.say_last(report)
    return code


@dataclass(frozen=True)
class Go:
    """What every attempt of a process has in common."""

    plan: Plan
    local_rank: int
    policy: Policy
    board: Board
    status: StageStatus
    screen: Screen
    terminal: ExitStack
    started: float


def _attempt_until_done(go: Go, supervisor: Supervisor) -> tuple[int, dict[str, Any]]:
    while True:
        try:
            attempt = go.policy.begin()
            return _try_once(go, attempt, supervisor)
        except ConnectionError as error:
            go.policy.go_back(error)


def _try_once(go: Go, attempt: Attempt, supervisor: Supervisor) -> tuple[int, dict[str, Any]]:
    """One attempt; returns exit code and report."""
    device = go.plan.placement.device_of(go.local_rank, go.plan.config.placement)
    # Layers are trained in place: another attempt needs new ones.
    plan = make_plan(go.plan.config, go.plan.placement.num_processes) if attempt.number else go.plan
    plan, predicted = settle_cut(resumed_plan(plan, attempt.origin), go.board, go.status, device)
    run = Run(plan, attempt, go.board, go.status)
    this = Stage(run, device, must_stop=supervisor.told_to_stop)
    leads = go.status.seat.rank == 0
    report = _lead(go, run, this, predicted) if leads else this.run(lambda name, batch_id: None)
    go.policy.leave(report)
    return 0 if this.is_finished else REQUEUE, report


def _lead(go: Go, run: Run, this: Stage, predicted: dict[str, Any]) -> dict[str, Any]:
    """Rank 0: runs like any other, shows the run to its user, and leaves its results behind."""
    folder, board = run.origin.folder, run.board
    monitor = _open_monitor(run, go.screen)
    go.terminal.callback(monitor.release_screen)
    with monitor, Committer(board, run.plan, folder, monitor.keep_evaluations) as committer:
        report = this.run(committer.expect)
        board.post(run.attempt.report_topic, 0, report)
        reports = _wait_for_reports(run, run.plan.config.faults.timeout_s)
    summary = summarise(
        reports, monitor.evaluations, time.perf_counter() - go.started, is_finished=this.is_finished, predicted=predicted,
        checkpoints=committer.counts(), began_at=run.origin.batch_id,
    )  # fmt: skip
    write_summary(folder, summary)
    write_trace(folder, board.read("trace"), list(run.plan.placement.seats()), [report["blocks"] for report in reports])
    go.screen.print(end_table(summary))
    go.screen.print(result_lines(summary, folder))
    return report


def _open_monitor(run: Run, screen: Screen) -> Monitor:
    plan, folder = run.plan, run.origin.folder
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(plan.config))
    if run.attempt.number == 0 and run.status.incarnation == 0:
        screen.print(headline(plan))
        screen.print(start_table(plan))
    trackers = make_trackers(plan.config.logging, folder, plan.config.model_dump(mode="json"))
    return Monitor(run.board, plan, run.origin, trackers, screen)


def _wait_for_reports(run: Run, timeout_s: float) -> list[dict[str, Any]]:
    run.status.now("waiting for the other processes' reports")
    topic, board = run.attempt.report_topic, run.board

    def missing() -> str:
        return f"the reports of ranks {[rank for rank, report in enumerate(board.read(topic)) if report is None]}"

    run.attempt.wait_for(lambda: board.is_complete(topic) or None, timeout_s, missing)
    return [report for report in board.read(topic) if report]
