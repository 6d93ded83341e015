"""Builds one stage of a run from a plan, runs it, and leaves its results behind: the same under every launcher."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.distributed import Store

from launch.config import dump_config
from launch.cutting import settle_cut
from launch.memory import reset_peak_memory
from launch.monitor import Monitor
from launch.preflight import Plan
from launch.summary import report_stage, summarise, write_summary
from launch.supervisor import Supervisor, host_name
from launch.tables import end_table, headline, result_lines, start_table
from launch.trace_file import write_trace
from launch.tracking import make_trackers
from workers.allocator import keep_freed_memory
from workers.board import Board, wait_for
from workers.checkpoint import save_block
from workers.data.source import BatchSource
from workers.debug import trouble
from workers.feed import Feed
from workers.inbox import SLOTS_BESIDE_BUFFER, Inbox, MessageStream
from workers.links.connect import LinkEnd
from workers.links.interface import Sender
from workers.meter import MetricsFile
from workers.stage import DeadEnd, Evaluation, StageWorker
from workers.status import StageStatus
from workers.trace import make_tracing


@dataclass(frozen=True)
class Process:
    """Which process of the run this one is.

    Attributes:
        folder: The run's, known to rank 0 alone; it tells the others.
        store: For the links; its calls may block.
        board_store: Another connection to the same store, for heartbeats, which must never stand behind a blocked call.
    """

    rank: int
    local_rank: int
    folder: Path | None
    store: Store
    board_store: Store


def run_stage(plan: Plan, process: Process, console: Console) -> dict[str, Any] | None:
    """Runs this process's stage to the end; ends the process if the run fails (see Supervisor).

    Returns:
        In stage 0 the summary of the whole run, once every stage has reported; None elsewhere.
    """
    started = time.perf_counter()
    reset_peak_memory()
    torch.set_num_threads(plan.config.placement.threads)
    keep_freed_memory()
    stage = plan.placement.stage_of(process.rank)
    board = Board(process.board_store, plan.placement.num_stages)
    folder = Path(board.share("folder", str(process.folder.absolute()) if process.folder else None))
    device = plan.placement.device_of(process.local_rank, plan.config.placement)
    status = StageStatus(stage, list(plan.placement.blocks_of(stage)), os.getpid(), host_name())
    terminal = ExitStack()
    with Supervisor(board, status, plan.config.faults, stop_console=terminal.close, folder=folder):
        plan, predicted = settle_cut(plan, board, status, device)
        if stage == 0:
            monitor = _open_monitor(plan, board, folder, console)
            terminal.callback(monitor.release_terminal)
            with monitor:
                board.post("report", stage, _Stage(plan, process, board, status, folder).run())
                reports = _wait_for_reports(board, status, plan.config.faults.timeout_s)
            summary = summarise(reports, monitor.evaluations, predicted, time.perf_counter() - started)
            write_summary(folder, summary)
            write_trace(folder, board.read("trace"), [report["blocks"] for report in reports])
            console.print(end_table(summary))
            console.print(result_lines(summary, folder), highlight=False, soft_wrap=True, markup=False)
            return summary
        report = _Stage(plan, process, board, status, folder).run()
    # Nothing is asked of the store after this: its host may be gone as soon as it has all reports.
    board.post("report", stage, report)
    return None


def _open_monitor(plan: Plan, board: Board, folder: Path, console: Console) -> Monitor:
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(plan.config))
    console.print(headline(plan), highlight=False)
    console.print(start_table(plan))
    trackers = make_trackers(plan.config.logging, folder, plan.config.model_dump(mode="json"))
    return Monitor(board, plan, folder, trackers, console)


def _wait_for_reports(board: Board, status: StageStatus, timeout_s: float) -> list[dict[str, Any]]:
    status.now("waiting for the other stages' reports")

    def missing() -> str:
        return f"the reports of stages {[stage for stage, report in enumerate(board.read('report')) if report is None]}"

    wait_for(lambda: board.is_complete("report") or None, timeout_s, missing)
    return [report for report in board.read("report") if report]


class _Stage:
    """The parts of one stage, wired together."""

    def __init__(self, plan: Plan, process: Process, board: Board, status: StageStatus, folder: Path) -> None:
        self._plan = plan
        self._board = board
        self._status = status
        self._folder = folder
        self._stage = status.stage
        self._store = process.store
        device = plan.placement.device_of(process.local_rank, plan.config.placement)
        self._blocks = [plan.blueprint.build_block(index, device) for index in status.blocks]

    def run(self) -> dict[str, Any]:
        """Trains, saves the blocks, and returns the stage's report."""
        # Links are made in the order of the stages: the upstream one first, so that no two ends wait crosswise.
        inbox = self._make_inbox()
        outbox = self._make_outbox()
        metrics = MetricsFile(self._folder / "metrics" / f"stage{self._stage}.jsonl")
        tracing = make_tracing(self._plan.config.logging, self._stage, len(self._blocks))
        blocks = tracing.blocks(trouble(self._blocks, self._stage, self._plan.config.debug))
        worker = StageWorker(
            blocks, tracing.inbox(inbox), tracing.outbox(outbox),
            sends_image=self._plan.sends_image(self._stage), status=self._status, metrics=metrics,
            interval_steps=self._plan.config.logging.interval_steps, publish=self._publish,
        )  # fmt: skip
        worker.run()
        metrics.close()
        for block in self._blocks:
            save_block(self._folder / "checkpoints" / "final", block)
        if spans := tracing.spans():
            self._board.post("trace", self._stage, spans)
        return asdict(report_stage(self._stage, self._blocks, worker.watch, inbox, outbox))

    def _make_inbox(self) -> MessageStream:
        config = self._plan.config
        if self._stage == 0:
            return self._make_feed()
        upstream = f"stage {self._stage - 1}"
        self._status.now(f"waiting for {upstream} to connect")
        receiver = self._link_end(self._stage - 1, upstream).receive(config.buffers.capacity + SLOTS_BESIDE_BUFFER)
        return Inbox(receiver, config.buffers, seed=config.training.seed, status=self._status, upstream=upstream,
                     timeout_s=config.faults.timeout_s)  # fmt: skip

    def _make_outbox(self) -> Sender:
        if self._stage == self._plan.placement.num_stages - 1:
            return DeadEnd()
        downstream = f"stage {self._stage + 1}"
        self._status.now(f"waiting for {downstream} to connect")
        return self._link_end(self._stage, downstream).send()

    def _link_end(self, link: int, peer: str) -> LinkEnd:
        return LinkEnd(
            self._plan.config.link, self._store, f"link{link}", self._plan.layout_after(link),
            peer=peer, device=self._blocks[0].device, timeout_s=self._plan.config.faults.timeout_s,
        )  # fmt: skip

    def _make_feed(self) -> Feed:
        config, replay = self._plan.config, self._plan.config.buffers.policy == "replay"
        # With queues every stage trains on exactly what stage 0 sends; with replay stage 0 waits for all step budgets.
        all_finished: Callable[[], bool] = lambda: self._board.all_rows("status", "finished")  # noqa: E731
        return Feed(
            BatchSource(config.data, config.training.seed), config.evaluation,
            total_steps=self._plan.blueprint.total_steps, num_classes=self._plan.data.num_classes,
            spread_evaluation=replay, may_stop=all_finished if replay else lambda: True, status=self._status,
        )  # fmt: skip

    def _publish(self, evaluation: Evaluation) -> None:
        self._board.post(f"evaluation/{evaluation.epoch}", self._stage, asdict(evaluation))
