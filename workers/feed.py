"""The messages of stage 0: training batches, evaluation passes in-band, and the end of the stream."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from greedypipe.buffers.stats import BufferStats
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS
from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.pipeline.task import Task
from greedypipe.workers.data.source import BatchSource, LoadedBatch
from greedypipe.workers.ending import Stops
from greedypipe.workers.inbox import Delivery
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.status import StageStatus

REST, LONGEST_REST_S = 2.0, 0.5
"""Rest of a finished stage 0 after each batch that it only forwards: a multiple of the batch's time, and its limit."""


class EvaluationConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Accuracy on held-out data, measured by the pipeline itself."""

    every_epochs: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always followed by one")


@dataclass(frozen=True)
class Start:
    """Where the stream of stage 0 begins: the first training batch, and the last epoch that has been evaluated."""

    batch_id: int = 0
    evaluated_epoch: int = 0


@dataclass(frozen=True)
class Calendar:
    """Schedule of evaluations and checkpoints in the stream of stage 0.

    Attributes:
        total_steps: Training batches in a step budget.
        every_epochs: Epochs between two evaluations.
        checkpoint_steps: Training batches between two marks; 0: no marks.
        start: Where the stream begins: at 0, unless the run resumes from a checkpoint.
        has_feedback: Whether anything travels back, so that blocks may have to learn from it after the last batch.
    """

    total_steps: int
    steps_per_epoch: int
    every_epochs: int = 1
    checkpoint_steps: int = 0
    start: Start = Start()
    has_feedback: bool = False

    @property
    def epochs(self) -> int:
        """Epochs in a step budget."""
        return self.total_steps // self.steps_per_epoch

    def epoch_due_before(self, batch_id: int) -> int:
        """The last epoch that should have been evaluated before this batch."""
        epoch = batch_id // self.steps_per_epoch
        return epoch - epoch % self.every_epochs

    def is_marked(self, batch_id: int, follows_pass: bool) -> bool:
        """Whether a mark precedes this batch. A mark also follows an evaluation pass that is sent in one piece, so that
        there is a checkpoint with a known accuracy."""
        if not self.checkpoint_steps or batch_id == self.start.batch_id:
            return False
        return batch_id % self.checkpoint_steps == 0 or follows_pass


class Feed:
    """Yields the messages that stage 0 processes, in place of an inbox.

    With queues between the stages an evaluation pass stands between two epochs, and every stage evaluates exactly the
    weights that it has after that epoch. With replay no stage may wait for a slower one, so the batches of a pass are
    spread among the training batches of the next epoch; only the last pass comes in one piece, when all have finished.

    A stage 0 that has used up its step budget could forward batches several times as fast as it trained, taking cores
    from the stages that still train, and the next stage's time for every mark. So it rests after each batch, for about
    as long as the backward pass would take: twice the forward pass.

    Args:
        spread_evaluation: Whether evaluation batches take turns with training batches.
        part: What this replica has of every batch.
    """

    def __init__(
        self,
        source: BatchSource,
        calendar: Calendar,
        task: Task,
        *,
        spread_evaluation: bool,
        stops: Stops,
        status: StageStatus,
        part: Part = WHOLE,
    ) -> None:
        self._source = source
        self._calendar = calendar
        self._task = task
        self._stops = stops
        self._ending = stops.ending
        self._part = part
        self._status = status
        self.wait_s = 0.0
        self.slot_bytes = 0
        # Evaluation batches per training batch, so that a pass ends before the next one is due; None: all at once.
        self._burst = -(-(source.num_evaluation_batches + 1) // source.steps_per_epoch) if spread_evaluation else None

    def __iter__(self) -> Iterator[Delivery]:
        for message in self._messages():
            self._status.now(Activity.COMPUTING)
            yield Delivery(message.part(self._part), 0, 1)
            self._status.now(Activity.WAIT_DATA)

    def read_each_once(self) -> None:
        """No-op: stage 0 reads every message once."""

    def stats(self) -> BufferStats:
        """Empty: stage 0 has no buffer in front of it."""
        return BufferStats(capacity=1)

    def close(self) -> None:
        """Ends the source's processes; idempotent."""
        self._source.close()

    def _messages(self) -> Iterator[Message]:
        pending: Iterator[Message] = iter(())
        total_steps = self._calendar.total_steps
        evaluated = self._calendar.start.evaluated_epoch
        for batch in self._source.training_batches(self._calendar.start.batch_id):
            due = self._calendar.epoch_due_before(batch.batch_id)
            if evaluates := due > evaluated and batch.batch_id < total_steps:
                pending, evaluated = self._pass(due), due
            yield from itertools.islice(pending, self._burst)
            # Not at `total_steps`: the stream is about to end anyway, and END with that number means a complete stream.
            if batch.batch_id != total_steps and self._stops.must():
                # Read first: a process that comes back after this look may have missed the mark, and needs another one.
                restarts = self._ending.restarts()
                # The checkpoint at which the stream begins is complete, and other stages may have gone on from it.
                if not 0 < batch.batch_id == self._calendar.start.batch_id:
                    yield Message(Kind.CHECKPOINT, batch.batch_id)
                yield Message(Kind.END, batch.batch_id)
                if not self._stays(restarts):
                    return
                continue
            if batch.batch_id >= total_steps:
                # Read first: a process that comes back after this look is counted as a restart since then.
                restarts = self._ending.restarts()
                if self._stops.may():
                    if self._calendar.has_feedback:
                        yield Message(Kind.DRAIN, total_steps)
                    yield from self._pass(self._calendar.epochs)
                    # A stage that came back during the pass may have steps to repeat.
                    if self._stops.may():
                        yield Message(Kind.END, total_steps)
                        if not self._stays(restarts):
                            return
            if self._calendar.is_marked(batch.batch_id, evaluates and self._burst is None):
                yield Message(Kind.CHECKPOINT, batch.batch_id)
            given_s = time.perf_counter()
            yield Message(Kind.TRAIN, batch.batch_id, tensors={**_tensors(batch), IMAGE: batch.images, **batch.extras})
            if batch.batch_id >= total_steps:
                self._status.now(Activity.REST)
                time.sleep(min(LONGEST_REST_S, REST * (time.perf_counter() - given_s)))

    def _stays(self, restarts: int) -> bool:
        return self._ending.stay(lambda: self._ending.restarts() != restarts)

    def _pass(self, epoch: int) -> Iterator[Message]:
        spec = self._task.ensemble
        for batch in self._source.evaluation_batches():
            ensemble = torch.zeros(len(batch.labels), *spec.shape, dtype=spec.dtype)
            yield Message(Kind.EVALUATE, batch.batch_id, tensors={**_tensors(batch), spec.name: ensemble})
        yield Message(Kind.EVALUATED, epoch)


def _tensors(batch: LoadedBatch) -> dict[str, Tensor]:
    return {LABELS: batch.labels, ACTIVATION: batch.images}
