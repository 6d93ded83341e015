"""Runs one process of a run from a plan, and leaves its results behind: the same under every launcher."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from greedypipe.launch.checkpoints.resume import resumed_plan
from greedypipe.launch.planning.auto_cut import settle_cut
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.build_stage import Run, Stage
from greedypipe.launch.process.lead import Go, lead
from greedypipe.launch.recovery.attempt import Attempt, RunIsOver
from greedypipe.launch.recovery.exit_codes import REQUEUE
from greedypipe.launch.recovery.isolate import policy_for
from greedypipe.launch.recovery.member import Member, Process
from greedypipe.launch.recovery.supervisor import Supervisor
from greedypipe.launch.reporting.screen import Screen
from greedypipe.workers.memory import keep_freed_memory, reset_peak_memory
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import host_name
from greedypipe.workers.telemetry.status import StageStatus


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


def _attempt_until_done(go: Go, supervisor: Supervisor) -> tuple[int, dict[str, Any]]:
    plan = go.plan
    while True:
        try:
            return _try_once(go, plan, go.policy.begin(), supervisor)
        except ConnectionError as error:
            go.policy.go_back(error)
            # Layers are trained in place: another attempt begins with the initial weights again.
            plan = go.plan.redrawn()


def _try_once(go: Go, plan: Plan, attempt: Attempt, supervisor: Supervisor) -> tuple[int, dict[str, Any]]:
    """One attempt with a plan that no attempt has trained yet; returns exit code and report."""
    device = plan.placement.device_of(go.local_rank, plan.config.placement)
    settled, predicted = settle_cut(resumed_plan(plan, attempt.origin), go.board, go.status, device)
    run = Run(settled, attempt, go.board, go.status)
    this = Stage(run, device, must_stop=supervisor.told_to_stop)
    leads = go.status.seat.rank == 0
    report = lead(go, run, this, predicted) if leads else this.run(lambda name, batch_id: None)
    go.policy.leave(report)
    return 0 if this.is_finished else REQUEUE, report
