"""What rank 0 does beside its own stage: it shows the run to its user, and leaves the results behind."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from greedypipe.launch.checkpoints.committer import Committer
from greedypipe.launch.config.loader import dump_config
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.build_stage import Run, Stage
from greedypipe.launch.recovery.attempt import Policy
from greedypipe.launch.reporting.monitor import Monitor, expected_epochs
from greedypipe.launch.reporting.screen import Screen
from greedypipe.launch.reporting.summary import summarise, write_summary
from greedypipe.launch.reporting.tables import end_table, headline, result_lines, start_table
from greedypipe.launch.reporting.trace_file import write_trace
from greedypipe.launch.reporting.trackers import make_trackers
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import Prediction, StageReport
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.topics import TRACE


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


def lead(go: Go, run: Run, this: Stage, predicted: Prediction | None) -> StageReport:
    """Rank 0: runs like any other, shows the run to its user, and leaves its results behind."""
    folder, board = run.origin.folder, run.board
    monitor = _open_monitor(run, go.screen)
    go.terminal.callback(monitor.release_screen)
    with monitor, Committer(board, run.plan, folder, monitor.keep_evaluations) as committer:
        report = this.run(committer.expect)
        board.post(run.attempt.report_topic, 0, report)
        reports = _wait_for_reports(run, run.plan.config.faults.timeout_s)
    summary = summarise(
        reports,
        monitor.evaluations,
        time.perf_counter() - go.started,
        is_finished=this.is_finished,
        predicted=predicted,
        checkpoints=committer.counts(),
        began_at=run.origin.batch_id,
    )
    write_summary(folder, summary)
    write_trace(folder, board.read(TRACE), list(run.plan.placement.seats()), [report.blocks for report in reports])
    go.screen.print(end_table(summary))
    go.screen.print(result_lines(summary, folder))
    return report


def _open_monitor(run: Run, screen: Screen) -> Monitor:
    plan, folder = run.plan, run.origin.folder
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", dump_config(plan.config))
    if run.attempt.number == 0 and run.status.incarnation == 0:
        screen.print(headline(plan))
        screen.print(start_table(plan))
    trackers = make_trackers(plan.config.logging, folder, plan.config.model_dump(mode="json"))
    epochs = expected_epochs(plan, run.origin.batch_id, run.origin.evaluated)
    return Monitor(run.board, plan, folder, epochs, trackers, screen)


def _wait_for_reports(run: Run, timeout_s: float) -> list[StageReport]:
    run.status.now(Activity.WAIT_REPORTS)
    topic, board = run.attempt.report_topic, run.board

    def missing() -> str:
        return f"the reports of ranks {[rank for rank, report in enumerate(board.read(topic)) if report is None]}"

    run.attempt.wait_for(lambda: board.is_complete(topic) or None, timeout_s, missing)
    return board.posted(topic)
