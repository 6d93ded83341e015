"""Builds the parts of one stage from a plan, and wires them together."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.launch.checkpoints.manifest import checkpoints_of, name_of
from greedypipe.launch.checkpoints.trained_network import restore, restore_own
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.connect_edges import StageLinks
from greedypipe.launch.recovery.attempt import Attempt
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.reporting.summary import report_stage
from greedypipe.pipeline.execution.recorder import own_stream
from greedypipe.workers.around.scripted_faults import trouble
from greedypipe.workers.around.shell import AnyBlock
from greedypipe.workers.around.trace import Tracing, make_tracing
from greedypipe.workers.block_files import FINAL, Saver
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.devices.gear import gear_of
from greedypipe.workers.ending import Stops
from greedypipe.workers.feed import Calendar, Feed, Start
from greedypipe.workers.inbox import FEEDBACK, SLOTS_BEYOND_BUFFER, Inbox, MessageStream
from greedypipe.workers.lines import Line, Lines, NoLine, ReceivedLine, ReceivedNewest, SentLine, SentNewest
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.placement import stage_name
from greedypipe.workers.replicas import Replicas, join_replicas
from greedypipe.workers.stage import Results, StageWorker
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.meter import MetricsFile
from greedypipe.workers.telemetry.records import EvaluationPart, Passed, Saved
from greedypipe.workers.telemetry.results import StageReport
from greedypipe.workers.telemetry.topics import PASSED, STATUS, TRACE, checkpoint_of, evaluation_of

NEWEST = BuffersConfig(policy="replay", capacity=1, selector="newest", max_reuse=1)
"""What is kept of feedback that answers no batch, where nobody waits: the newest entry, read once."""
Expect = Callable[[str, int], None]
"""Called with the name and the batch_id of every checkpoint that this stage saves."""


def expect_nothing(name: str, batch_id: int) -> None:
    """No-op: rank 0 alone completes checkpoints, and it learns of each of them from its own stage."""


@dataclass(frozen=True)
class _Parts:
    """The parts of a stage's loop in one attempt; closed when the attempt ends, however it ends."""

    blocks: Sequence[AnyBlock]
    inbox: MessageStream
    outbox: Sender
    before: Line
    behind: Line
    metrics: MetricsFile
    saver: Saver
    tracing: Tracing


class Stage:
    """The parts of one stage, wired together for one attempt.

    Args:
        device: The device of its blocks.
        must_stop: Whether the run is to save itself and end; asked in stage 0.
    """

    def __init__(self, member: Member, attempt: Attempt, device: torch.device, must_stop: Callable[[], bool]) -> None:
        self._member = member
        self._plan = member.plan
        self._board = member.board
        self._status = member.status
        self._seat = member.seat
        self._stage = member.seat.stage
        self._attempt = attempt
        self._origin = attempt.origin
        self._must_stop = must_stop
        self._device = device
        self._gear = gear_of(device)
        self._normalising = self._gear.normalising(member.plan.config.data, member.plan.data)
        self._blocks = [member.plan.blueprint.build_block(index, device) for index in member.status.blocks]
        self._has_saved_end = False
        self.is_finished = False
        """After `run`: whether the stream has come to its end, not been stopped before."""
        self.last_checkpoint = ""
        """After `run`: name of the checkpoint in which the end is saved, or the point at which the run was stopped."""

    def run(self, expect: Expect) -> StageReport:
        """Trains, saves the blocks, and returns the stage's report; closes its links and files in any case.

        Raises:
            ConnectionError: A neighbour is gone.
        """
        self._status.finished = False
        self._load()
        with ExitStack() as open_parts:
            parts = self._connect(open_parts)
            self._worker = self._make_worker(parts, expect)
            with own_stream(self._device):
                self._worker.run()
            return self._report

    def _connect(self, open_parts: ExitStack) -> _Parts:
        """Connects to the other replicas and the neighbours, and opens the files; blocks until all of them are there."""
        folder, logging = self._origin.folder, self._plan.config.logging
        self._replicas = self._join_replicas()
        open_parts.callback(self._replicas.close)
        blocks = self._replicas.share_learning(self._blocks)
        links = StageLinks(self._plan, self._attempt, self._status, self._device)
        inbox = self._make_inbox(links)
        open_parts.callback(inbox.close)
        back = links.back_sender()
        if back:
            open_parts.callback(back.abandon)
        outbox = links.sender()
        open_parts.callback(outbox.abandon)
        behind = self._line_behind(links, open_parts)
        links.wait_for_neighbours()
        before = self._line_before(back)
        metrics = MetricsFile(folder / "metrics" / f"stage{self._seat.label}.jsonl")
        open_parts.callback(metrics.close)
        saver = Saver(checkpoints_of(folder), self._tell, self._told, self._gear.copies())
        open_parts.callback(saver.close)
        tracing = make_tracing(logging, self._stage, len(self._blocks), self._gear.work)
        return _Parts(blocks, inbox, outbox, before, behind, metrics, saver, tracing)

    def _make_worker(self, parts: _Parts, expect: Expect) -> StageWorker:
        config, tracing, gear = self._plan.config, parts.tracing, self._gear

        def save(batch_id: int) -> None:
            self._status.now(Activity.SAVE)
            parts.saver.save(name_of(batch_id), self._replicas.states(self._blocks))
            self._status.now(Activity.COMPUTING)
            expect(name_of(batch_id), batch_id)

        # A scripted fault happens once: not again to a process that comes back from it.
        troubled = parts.blocks if self._member.incarnation else trouble(parts.blocks, self._stage, config.debug)
        blocks = tracing.blocks(troubled)
        return StageWorker(
            blocks,
            tracing.inbox(gear.inbox(parts.inbox, self._status, self._normalising)),
            tracing.outbox(gear.outbox(parts.outbox)),
            Lines(blocks, parts.before, tracing.line(gear.line(parts.behind))),
            carried=self._plan.carried_after(self._stage),
            task=self._plan.blueprint.task,
            status=self._status,
            results=Results(
                parts.metrics,
                config.logging.interval_steps,
                self._publish,
                save,
                lambda ended_at: self._finish(parts, ended_at, expect),
                gear,
            ),
        )

    def _finish(self, parts: _Parts, ended_at: int, expect: Expect) -> None:
        """Saves and reports at an end of the stream."""
        self._save_end(parts.saver, ended_at, expect)
        if spans := parts.tracing.spans():
            self._board.post(TRACE, self._seat.rank, spans)
        report = report_stage(
            self._status, self._blocks, self._worker.watch, parts.inbox, parts.outbox, parts.before, parts.behind
        )
        self._report = replace(report, save_stalled_s=parts.saver.stalled_s, records_lost=parts.metrics.lost)
        self._attempt.ending.report(self._report)

    def _save_end(self, saver: Saver, ended_at: int, expect: Expect) -> None:
        """Waits until all saving is done and, if the stream has come to its end, saves the end, once."""
        self._status.now(Activity.SAVE)
        saver.wait()
        self.is_finished = ended_at == self._plan.blueprint.total_steps
        self.last_checkpoint = FINAL if self.is_finished else name_of(ended_at)
        if self.is_finished and not self._has_saved_end:
            if not self._origin.is_own_end:
                saver.save_now(FINAL, self._replicas.states(self._blocks))
            self._has_saved_end = True
            expect(FINAL, ended_at)

    def _join_replicas(self) -> Replicas:
        self._status.now(Activity.JOIN_REPLICAS)
        timeout_s, attempt = self._plan.config.faults.timeout_s, self._attempt
        return join_replicas(self._seat, attempt.store, self._device, timeout_s, attempt.is_over)

    def _load(self) -> None:
        """Loads this stage's blocks from the origin's checkpoint."""
        if not self._origin.checkpoint:
            return
        if self._origin.is_own_end:
            restore_own(self._blocks, self._origin.checkpoint)
            return
        for block in restore(self._blocks, self._origin.checkpoint, self._seat.part):
            last = block.layers[-1].name
            print(f"block {block.index}: fresh head, none of the checkpoint's stands behind {last}", file=sys.stderr)

    def _make_inbox(self, links: StageLinks) -> MessageStream:
        config = self._plan.config
        if self._stage == 0:
            return self._make_feed()
        receiver = links.receiver(config.buffers.capacity + SLOTS_BEYOND_BUFFER)
        return Inbox(
            receiver,
            config.buffers,
            seed=config.training.seed,
            status=self._status,
            upstream=stage_name(self._stage - 1),
            timeout_s=config.faults.timeout_s,
            ending=self._attempt.ending,
        )

    def _line_before(self, sender: Sender | None) -> Line:
        """The line to the stage before; what was in it at the checkpoint is sent again, at once."""
        if sender is None:
            return NoLine()
        first = self._blocks[0]
        if self._plan.config.buffers.policy == "replay":
            return SentNewest(sender, first)
        return SentLine(sender, first.line, self._origin.batch_id)

    def _line_behind(self, links: StageLinks, open_parts: ExitStack) -> Line:
        """The line from the next stage, whose inbox holds one entry more than its delay, so that it never waits for room;
        with replay the newest one alone."""
        config, last = self._plan.config, self._blocks[-1]
        replay = config.buffers.policy == "replay"
        buffer = NEWEST if replay else BuffersConfig(policy="fifo", capacity=last.timing.delay + 1)
        if (receiver := links.back_receiver(buffer.capacity + SLOTS_BEYOND_BUFFER)) is None:
            return NoLine()
        inbox = Inbox(
            receiver,
            buffer,
            seed=config.training.seed,
            status=self._status,
            upstream=stage_name(self._stage + 1),
            timeout_s=config.faults.timeout_s,
            awaited=FEEDBACK,
        )
        open_parts.callback(inbox.close)
        return ReceivedNewest(inbox, self._device, last) if replay else ReceivedLine(inbox, self._device)

    def _make_feed(self) -> Feed:
        config, replay = self._plan.config, self._plan.config.buffers.policy == "replay"
        # With queues every stage trains on exactly what stage 0 sends; with replay stage 0 waits for all step budgets.
        all_finished: Callable[[], bool] = lambda: self._board.all_rows(STATUS, lambda row: row.finished)  # noqa: E731
        return Feed(
            BatchSource(config.data, config.training.seed, self._plan.data, self._normalising.prepare),
            calendar_of(self._plan, Start(self._origin.batch_id, max(self._origin.evaluated, default=0))),
            self._plan.blueprint.task,
            spread_evaluation=replay,
            stops=Stops(
                may=all_finished if replay else lambda: True,
                must=lambda: self._replicas.agree(self._must_stop()),
                ending=self._attempt.ending,
            ),
            status=self._status,
            part=self._seat.part,
        )

    def _publish(self, part: EvaluationPart) -> None:
        self._board.post(evaluation_of(part.epoch), self._seat.rank, part)
        self._board.post(PASSED, self._seat.rank, Passed(part.epoch, time.time()))

    def _tell(self, name: str, saved: Saved) -> None:
        self._board.post(checkpoint_of(name, self._attempt.number), self._seat.rank, saved)

    def _told(self, name: str) -> Saved | None:
        return self._board.read(checkpoint_of(name, self._attempt.number))[self._seat.rank]


def calendar_of(plan: Plan, start: Start) -> Calendar:
    """The calendar of stage 0's stream."""
    config, blueprint = plan.config, plan.blueprint
    return Calendar(
        blueprint.total_steps,
        blueprint.steps_per_epoch,
        config.evaluation.every_epochs,
        config.checkpoint.interval_steps,
        start,
        blueprint.has_feedback,
    )
