"""Runs one process of a run, and leaves its results behind: the same under every launcher."""

import contextlib
import time
from dataclasses import dataclass, replace

import torch

from greedypipe.launch.checkpoints.folder_lock import FolderLock
from greedypipe.launch.checkpoints.resume import resumed_plan
from greedypipe.launch.planning.auto_cut import settle_cut
from greedypipe.launch.process.build_stage import Stage, expect_nothing
from greedypipe.launch.process.lead import Leader
from greedypipe.launch.recovery.attempt import Attempt, Recovery, RunIsOver
from greedypipe.launch.recovery.exit_codes import REQUEUE
from greedypipe.launch.recovery.isolate import recovery_for
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.recovery.stopping import RankSignals
from greedypipe.launch.recovery.supervisor import Supervisor
from greedypipe.launch.reporting.screen import Screen
from greedypipe.workers.devices.current import compute_repeatably, make_current
from greedypipe.workers.devices.gpu import gpu_of
from greedypipe.workers.links.nccl import leave_ending_to_supervisor
from greedypipe.workers.memory import keep_freed_memory, reset_peak_memory, reset_peak_on
from greedypipe.workers.telemetry.results import StageReport
from greedypipe.workers.telemetry.topics import GPU

RELEASE_S = 5.0
"""How long the folder's lock may take to become free: another host may not know yet that its last owner is gone."""


def run_stage(member: Member, screen: Screen, signals: RankSignals) -> int:
    """Runs this process's stage to the end; ends the process if the run fails (see Supervisor).

    Returns:
        The exit code: 0, or REQUEUE where the run has saved itself because it was told to stop. Rank 0 returns when
        every process has reported.
    """
    leader = Leader(screen, time.perf_counter())
    faults = member.plan.config.faults
    leave_ending_to_supervisor()
    device = member.plan.placement.device_of(member.local_rank, member.plan.config.placement)
    if member.plan.config.training.deterministic:
        compute_repeatably()
    make_current(device)
    if gpu := gpu_of(device):
        member.board.post(GPU, member.rank, gpu)
    reset_peak_memory()
    torch.set_num_threads(member.plan.config.placement.threads)
    keep_freed_memory()
    with Supervisor(
        member.board,
        member.status,
        faults,
        signals,
        labels=[seat.label for seat in member.plan.placement.seats()],
        stop_console=leader.release_screen,
        beat=member.life.beat,
        folder=member.folder,
    ) as supervisor:
        recovery = recovery_for(member)
        try:
            with FolderLock(member.folder, RELEASE_S) if member.rank == 0 else contextlib.nullcontext():
                done = _attempt_until_done(member, device, recovery, leader, supervisor)
        except RunIsOver:
            return 0
    recovery.say_last(done.report)
    return done.exit_code


@dataclass(frozen=True)
class _Done:
    """How an attempt that was not lost ended for this process."""

    exit_code: int
    report: StageReport


def _attempt_until_done(
    member: Member, device: torch.device, recovery: Recovery, leader: Leader, supervisor: Supervisor
) -> _Done:
    untrained = member
    while True:
        try:
            done = _try_once(untrained, device, recovery.begin(), leader, supervisor)
            recovery.leave(done.report)
            return done
        except ConnectionError as error:
            recovery.go_back(error)
            # Layers are trained in place: another attempt begins with the initial weights again.
            untrained = replace(member, plan=member.plan.redrawn())


def _try_once(member: Member, device: torch.device, attempt: Attempt, leader: Leader, supervisor: Supervisor) -> _Done:
    """One attempt by a member with an untrained plan."""
    plan, leads = member.plan, member.rank == 0
    if attempt.origin.is_over:
        if leads:
            leader.show_finished(attempt.origin.folder)
        raise RunIsOver
    settled, predicted = settle_cut(resumed_plan(plan, attempt.origin), member.board, member.status, device)
    member = replace(member, plan=settled)
    reset_peak_on(device)
    stage = Stage(member, attempt, device, must_stop=supervisor.told_to_stop)
    report = leader.run(member, attempt, stage, predicted) if leads else stage.run(expect_nothing)
    return _Done(0 if stage.is_finished else REQUEUE, report)
