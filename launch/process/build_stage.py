"""Builds the parts of one stage from a plan, and wires them together."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch

from greedypipe.launch.checkpoints.manifest import checkpoints_of, name_of
from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.process.connect_edges import StageLinks
from greedypipe.launch.recovery.attempt import Attempt
from greedypipe.launch.reporting.summary import report_stage
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.recut import transferred_state
from greedypipe.workers.around.scripted_faults import trouble
from greedypipe.workers.around.trace import make_tracing
from greedypipe.workers.block_files import FINAL, Saved, Saver, load_blocks
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.evaluation import Evaluation
from greedypipe.workers.feed import Feed, Start
from greedypipe.workers.inbox import SLOTS_BESIDE_BUFFER, Inbox, MessageStream
from greedypipe.workers.replicas import Replicas, join_replicas
from greedypipe.workers.stage import StageWorker
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.meter import MetricsFile
from greedypipe.workers.telemetry.status import StageStatus

Expect = Callable[[str, int], None]
"""Told of every checkpoint that this stage saves: its name and its batch_id."""


@dataclass(frozen=True)
class Run:
    """What one process knows of its run."""

    plan: Plan
    attempt: Attempt
    board: Board
    status: StageStatus

    @property
    def origin(self) -> Origin:
        """Where the run writes and began this time."""
        return self.attempt.origin


class Stage:
    """The parts of one stage, wired together for one attempt.

    Args:
        device: Of its blocks.
        must_stop: Whether the run is to save itself and end; asked in stage 0.
    """

    def __init__(self, run: Run, device: torch.device, must_stop: Callable[[], bool]) -> None:
        self._plan = run.plan
        self._origin = run.origin
        self._attempt = run.attempt
        self._board = run.board
        self._status = run.status
        self._must_stop = must_stop
        self._seat = run.status.seat
        self._stage = run.status.stage
        self._device = device
        self._blocks = [run.plan.blueprint.build_block(index, device) for index in run.status.blocks]
        self.is_finished = False
        """Once it has run: whether the stream came to its end and was not stopped before."""

    def run(self, expect: Expect) -> dict[str, Any]:
        """Trains, saves the blocks, and returns the stage's report; whatever happens, gives up its links and files.

        Raises:
            ConnectionError: A neighbour is gone.
        """
        self._status.finished = False
        self._load()
        with ExitStack() as open_parts:
            return self._run(expect, open_parts)

    def _run(self, expect: Expect, open_parts: ExitStack) -> dict[str, Any]:
        config, folder = self._plan.config, self._origin.folder
        self._replicas = self._join_replicas()
        open_parts.callback(self._replicas.close)
        blocks = self._replicas.share_learning(self._blocks)
        links = StageLinks(self._plan, self._attempt.meetings, self._status, self._device)
        inbox = self._make_inbox(links)
        open_parts.callback(inbox.close)
        outbox = links.sender()
        open_parts.callback(outbox.abandon)
        metrics = MetricsFile(folder / "metrics" / f"stage{self._seat.label}.jsonl")
        open_parts.callback(metrics.close)
        tracing = make_tracing(config.logging, self._stage, len(self._blocks))
        saver = Saver(checkpoints_of(folder), self._tell)
        open_parts.callback(saver.close)

        def save(batch_id: int) -> None:
            saver.save(name_of(batch_id), self._saved_blocks)
            expect(name_of(batch_id), batch_id)

        # A scripted fault happens once: not again to a process that comes back from it.
        blocks = blocks if self._status.incarnation else trouble(blocks, self._stage, config.debug)
        worker = StageWorker(
            tracing.blocks(blocks),
            tracing.inbox(inbox),
            tracing.outbox(outbox),
            sends_image="image" in self._plan.carried_after(self._stage),
            status=self._status,
            metrics=metrics,
            interval_steps=config.logging.interval_steps,
            publish=self._publish,
            save=save,
        )
        worker.run()
        self._status.now("saving")
        saver.close()
        self.is_finished = worker.ended_at == self._plan.blueprint.total_steps
        if self.is_finished:
            saver.save_now(FINAL, self._saved_blocks)
            expect(FINAL, worker.ended_at)
        if spans := tracing.spans():
            self._board.post("trace", self._seat.rank, spans)
        return asdict(report_stage(self._status, self._blocks, worker.watch, inbox, outbox, saver.stalled_s))

    def _join_replicas(self) -> Replicas:
        self._status.now(f"waiting for the other replicas of stage {self._stage} to connect")
        return join_replicas(self._seat, self._attempt.store, self._device, self._plan.config.faults.timeout_s)

    @property
    def _saved_blocks(self) -> list[Block]:
        """Of several replicas, which are equal, the first saves."""
        return self._blocks if self._seat.leads_stage else []

    def _load(self) -> None:
        """Takes over what the origin's checkpoint holds of this stage's blocks."""
        if not self._origin.checkpoint:
            return
        saved = load_blocks(self._origin.checkpoint)
        for block in self._blocks:
            state, head_is_fresh = transferred_state(block, saved)
            block.load_state_dict(state)
            if head_is_fresh:
                last = block.layers[-1].name
                print(f"block {block.index}: fresh head, none of the checkpoint's stands behind {last}", file=sys.stderr)

    def _make_inbox(self, links: StageLinks) -> MessageStream:
        config = self._plan.config
        if self._stage == 0:
            return self._make_feed()
        receiver = links.receiver(config.buffers.capacity + SLOTS_BESIDE_BUFFER)
        return Inbox(
            receiver,
            config.buffers,
            seed=config.training.seed,
            status=self._status,
            upstream=f"stage {self._stage - 1}",
            timeout_s=config.faults.timeout_s,
        )

    def _make_feed(self) -> Feed:
        config, replay = self._plan.config, self._plan.config.buffers.policy == "replay"
        # With queues every stage trains on exactly what stage 0 sends; with replay stage 0 waits for all step budgets.
        all_finished: Callable[[], bool] = lambda: self._board.all_rows("status", "finished")  # noqa: E731
        return Feed(
            BatchSource(config.data, config.training.seed, self._plan.data),
            config.evaluation,
            total_steps=self._plan.blueprint.total_steps,
            num_classes=self._plan.data.num_classes,
            spread_evaluation=replay,
            may_stop=all_finished if replay else lambda: True,
            status=self._status,
            part=self._plan.placement.part_of(self._seat),
            start=Start(self._origin.batch_id, max(self._origin.evaluated, default=0)),
            checkpoint_steps=config.checkpoint.interval_steps,
            must_stop=lambda: self._replicas.agree(self._must_stop()),
        )

    def _publish(self, evaluation: Evaluation) -> None:
        self._board.post(f"evaluation/{evaluation.epoch}", self._seat.rank, asdict(evaluation))

    def _tell(self, name: str, saved: Saved) -> None:
        self._board.post(f"checkpoint/{name}", self._seat.rank, asdict(saved))
