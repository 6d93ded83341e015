"""What rank 0 does next to its own stage: it shows the run to its user, and writes the results."""

import contextlib
import time
from pathlib import Path

from greedypipe.launch.checkpoints.committer import Committer
from greedypipe.launch.config.loader import dump_config
from greedypipe.launch.process.build_stage import Stage
from greedypipe.launch.recovery.attempt import Attempt
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.reporting.monitor import Monitor, expected_epochs
from greedypipe.launch.reporting.screen import Screen
from greedypipe.launch.reporting.summary import summarise
from greedypipe.launch.reporting.tables import end_table, headline, result_lines, start_table
from greedypipe.launch.reporting.trace_file import write_trace
from greedypipe.launch.reporting.trackers import Run, make_trackers
from greedypipe.workers.atomic import write_record
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import Board, wait_for
from greedypipe.workers.telemetry.records import Gpu, StageRow
from greedypipe.workers.telemetry.results import Prediction, StageReport, Summary
from greedypipe.workers.telemetry.summary_file import read_summary, write_summary
from greedypipe.workers.telemetry.topics import GPU, STATUS, TRACE

GPUS_S = 10.0
"""How long the headline waits for processes that have not yet said which GPU they are on."""


class Leader:
    """Shows a run on a screen and writes its files, in rank 0, for all of its attempts.

    Args:
        started: When the run began, by `time.perf_counter`.
    """

    def __init__(self, screen: Screen, started: float) -> None:
        self._screen = screen
        self._started = started
        self._monitor: Monitor | None = None

    def release_screen(self) -> None:
        """Stops showing the run, so that others may print; any thread may call it, in any process."""
        if self._monitor:
            self._monitor.release_screen()

    def show_finished(self, folder: Path) -> None:
        """Shows the figures of a run that has nothing left to do."""
        self._screen.print("nothing to train: the run has finished, and its figures stay as they are")
        if isinstance(summary := read_summary(folder), Summary):
            self._screen.print(result_lines(summary, folder))

    def run(self, member: Member, attempt: Attempt, stage: Stage, predicted: Prediction | None) -> StageReport:
        """Runs the stage and, meanwhile, shows what all stages do; returns when all have reported.

        Raises:
            ConnectionError: A neighbour is gone.
            TimeoutError: A process has not reported; names it.
        """
        folder, board = attempt.origin.folder, member.board
        monitor = self._monitor = self._open_monitor(member, attempt)
        with monitor, Committer(board, member.plan, attempt.origin, monitor.keep_evaluations, attempt.number) as committer:
            report = stage.run(committer.expect)
            board.post(attempt.report_topic, member.rank, report)
            reports = _wait_for_reports(member, attempt)
        committer.check_saved(stage.last_checkpoint)
        summary = summarise(
            reports,
            monitor.evaluations,
            time.perf_counter() - self._started,
            is_finished=stage.is_finished,
            predicted=predicted,
            checkpoints=committer.counts(),
            began_at=attempt.origin.batch_id,
        )
        write_summary(folder, summary)
        seats, spans = list(member.plan.placement.seats()), board.read(TRACE)
        write_trace(folder, spans, seats, [report.blocks for report in reports])
        self._screen.print(end_table(summary))
        self._screen.print(result_lines(summary, folder))
        return report

    def _open_monitor(self, member: Member, attempt: Attempt) -> Monitor:
        plan, origin = member.plan, attempt.origin
        member.status.now(Activity.SAVE)
        write_record(origin.folder / "config.yaml", dump_config(plan.config))
        if attempt.number == 0 and member.incarnation == 0:
            gpus = _gpus(member.board)
            self._screen.print(headline(plan, gpus))
            self._screen.print(start_table(plan, gpus))
        settings = plan.config.model_dump(mode="json")
        trackers = make_trackers(Run(origin.folder, settings, plan.blueprint.num_blocks, plan.config.logging))
        epochs = expected_epochs(plan, origin.batch_id, origin.evaluated)
        return Monitor(member.board, plan, origin.folder, epochs, trackers, self._screen)


def _gpus(board: Board) -> list[Gpu | None]:
    """The GPUs of all processes, by rank; empty where the run uses none. Waits a few seconds for those that start late."""
    if not board.posted(GPU):
        return []
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: board.complete(GPU), GPUS_S, lambda: "the other processes' GPUs")
    return board.read(GPU)


def _wait_for_reports(member: Member, attempt: Attempt) -> list[StageReport]:
    member.status.now(Activity.WAIT_REPORTS)
    topic, board = attempt.report_topic, member.board

    def missing() -> str:
        reports, rows = board.read(topic), board.read(STATUS)
        absent = [rank for rank, report in enumerate(reports) if report is None]
        return f"the reports of {', '.join(_doing(member.plan.placement.seat_of(rank), rows[rank]) for rank in absent)}"

    return attempt.wait_for(lambda: board.complete(topic), member.timeout_s, missing)


def _doing(seat: Seat, row: StageRow | None) -> str:
    return f"{seat.name} ({row.doing if row else 'not begun'})"
