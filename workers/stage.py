"""The loop of one stage: the same for synchronous and asynchronous DGL, for the first, a middle and the last stage."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from greedypipe.pipeline.batch import ACTIVATION, LABELS, Batch
from greedypipe.pipeline.order import Act, turn_order
from greedypipe.pipeline.task import Task
from greedypipe.workers.around.shell import AnyBlock
from greedypipe.workers.devices.gear import CpuGear, Gear
from greedypipe.workers.evaluation import Counts
from greedypipe.workers.inbox import MessageStream
from greedypipe.workers.lines import Lines
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import stage_name
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.meter import MetricsFile, Waits
from greedypipe.workers.telemetry.records import EvaluationPart
from greedypipe.workers.telemetry.results import PassRecord, StepRecord
from greedypipe.workers.telemetry.status import StageStatus


class InheritedFailure(RuntimeError):
    """This stage fails because its input is broken: the cause lies upstream."""


@dataclass(frozen=True)
class Results:
    """Destinations of a stage's results.

    Attributes:
        metrics: File for the records of training and evaluation.
        interval_steps: Steps between two records, and between two checks for losses that are not finite.
        publish: Called with every finished evaluation.
        save: Called at every checkpoint mark with its batch_id; must return soon.
        finish: Called at the end of the stream with its batch_id, when the next stage has been sent it: saves and reports.
        gear: The parts of the stage that depend on its device.
    """

    metrics: MetricsFile
    interval_steps: int
    publish: Callable[[EvaluationPart], None]
    save: Callable[[int], None]
    finish: Callable[[int], None]
    gear: Gear = field(default_factory=CpuGear)


class StageWorker:
    """Trains the consecutive blocks of one stage on the messages of its inbox, and sends activations to the next stage.

    | consumes  | waits for                          | unblocked by                  | ended by          |
    |-----------|------------------------------------|-------------------------------|-------------------|
    | the inbox | a message from the previous stage  | the inbox's receiving thread  | Kind.END          |
    |           | a slot of the outbox               | the next stage's receiver     |                   |
    | the lines | feedback of the next stage         | its next turn                 | Kind.END          |

    Args:
        blocks: Blocks of this stage, in the network's order.
        inbox: Messages for this stage.
        outbox: Link to the next stage; `DeadEnd` in the last one.
        lines: Lines of feedback: between these blocks, from the next stage, and to the stage before.
        carried: Names of the tensors that later blocks need besides the activation.
        task: What the network is trained to do.
    """

    def __init__(
        self,
        blocks: Sequence[AnyBlock],
        inbox: MessageStream,
        outbox: Sender,
        lines: Lines,
        *,
        carried: Sequence[str],
        task: Task,
        status: StageStatus,
        results: Results,
    ) -> None:
        self._blocks = blocks
        self._device = blocks[0].device
        self._inbox = inbox
        self._outbox = outbox
        self._lines = lines
        self._order = turn_order([block.timing for block in blocks])
        self._keeps_batches = any(block.timing.lag for block in blocks)
        self._carried = tuple(carried)
        self._task = task
        self._status = status
        self._downstream = stage_name(status.stage + 1)
        self._results = results
        self._meters = {block.index: results.gear.meter(block, results.interval_steps) for block in blocks}
        self._counts = Counts([block.index for block in blocks], task, self._device)
        self.watch = results.gear.watch

    def run(self) -> None:
        """Runs until the stream ends; blocks until the next stage has taken everything."""
        handlers = {
            Kind.TRAIN: self._train,
            Kind.EVALUATE: self._evaluate,
            Kind.EVALUATED: self._finish_evaluation,
            Kind.CHECKPOINT: self._checkpoint,
            Kind.DRAIN: self._drain,
            Kind.END: self._end,
        }
        clock, waited = None, Waits()
        for delivery in self._inbox:
            if clock is None:  # the wait for the first message is start-up, not training
                clock, waited = time.perf_counter(), self._waits()
            message = delivery.message.to(self._device)
            training = message.kind == Kind.TRAIN and not self._status.finished
            handlers[message.kind](message)
            now, waits = time.perf_counter(), self._waits()
            seconds = now - clock
            if training:
                self.watch.count_training(seconds, waits.since(waited), message.rows // self._task.views)
            elif message.kind == Kind.TRAIN:
                self.watch.hand_on_s += seconds
            else:
                self.watch.evaluate_s += seconds
            clock, waited = now, waits
        self._status.now(Activity.DRAIN, self._downstream)
        self._outbox.close()
        self._lines.close()
        self._inbox.close()

    def _waits(self) -> Waits:
        return Waits(self._inbox.wait_s, self._outbox.wait_room_s, self._lines.wait_s)

    def _train(self, message: Message) -> None:
        message = message.copied() if self._keeps_batches else message
        batch, x = _batch_of(message), message.tensors[ACTIVATION]
        self._status.batch_id = message.batch_id
        for act, position in self._order:
            if act is Act.LEARN:
                self._learn(position, message)
                continue
            block = self._blocks[position]
            x = block.forward(x, batch)
            if block is self._blocks[-1]:
                tensors = {name: message.tensors[name] for name in self._carried}
                self._send(
                    Message(Kind.TRAIN, message.batch_id, block.step, {**tensors, **block.codec.packed}, message.batch_rows)
                )
        self._status.step = self._blocks[0].turn
        if not self._status.finished and all(block.finished for block in self._blocks):
            self._status.finished = True
            self._inbox.read_each_once()

    def _learn(self, position: int, message: Message) -> None:
        block = self._blocks[position]
        loss, back = block.learn(self._lines.get(position))
        self._lines.put(position, back, message.batch_id)
        if loss is not None and self._meters[block.index].record(loss, message.batch_id):
            self._check_and_write(block, message)

    def _drain(self, message: Message) -> None:
        """What the layers of these blocks have not yet been sent is on its way, or will be when the next stage drains."""
        self._send(message)
        for position, block in reversed(list(enumerate(self._blocks))):
            for _ in range(block.drain_turns):
                _, back = block.learn(self._lines.get(position), drains=True)
                if block.relays:
                    self._lines.put(position, back, message.batch_id)

    def _evaluate(self, message: Message) -> None:
        name = self._task.ensemble.name
        x, labels, ensemble = (message.tensors[key] for key in (ACTIVATION, LABELS, name))
        for block in self._blocks:
            x, outputs = block.predict(x)
            ensemble = self._task.add_to_ensemble(ensemble, outputs, block.index)
            self._counts.add(block.index, outputs, labels)
        self._counts.add_ensemble(ensemble, labels)
        tensors = {LABELS: labels, **self._blocks[-1].codec.packed, name: ensemble}
        self._send(Message(Kind.EVALUATE, message.batch_id, message.step, tensors, message.batch_rows))

    def _finish_evaluation(self, message: Message) -> None:
        for block in self._blocks:
            self._write_unread(block)
            self._write_metrics(block)
        counted = self._counts.read()
        ensemble = counted.ensemble if self._outbox.is_dead_end else None
        evaluation = EvaluationPart(message.batch_id, counted.samples, counted.correct, ensemble, counted.loss)
        accuracies = {index: count / max(counted.samples, 1) for index, count in counted.correct.items()}
        self._status.accuracy = accuracies
        self._results.metrics.write(PassRecord(evaluation=evaluation.epoch, samples=counted.samples, accuracy=accuracies))
        self._results.publish(evaluation)
        self._send(message)

    def _checkpoint(self, message: Message) -> None:
        self._send(message)
        self._results.save(message.batch_id)

    def _end(self, message: Message) -> None:
        if any(block.total_steps <= message.batch_id and not block.finished for block in self._blocks):
            # It was sent when this process had died, and counted as finished. Another end will follow.
            return
        self._send(message)
        for block in self._blocks:
            self._write_unread(block)
        self._lines.end()
        self._inbox.read_each_once()
        self._results.finish(message.batch_id)

    def _send(self, message: Message) -> None:
        self._status.now(Activity.WAIT_ROOM, self._downstream)
        self._outbox.send(message)
        self._status.now(Activity.COMPUTING)

    def _check_and_write(self, block: AnyBlock, message: Message) -> None:
        try:
            self._write_metrics(block)
        except FloatingPointError as error:
            if message.tensors[ACTIVATION].isfinite().all():
                raise
            raise InheritedFailure(f"{error}; so are the activations that {self._status.seat.name} receives") from error

    def _write_unread(self, block: AnyBlock) -> None:
        """Writes what has been due since the device had more to do than to be read."""
        while self._meters[block.index].has_unread:
            self._write_metrics(block)

    def _write_metrics(self, block: AnyBlock) -> None:
        read = self._meters[block.index].read()
        if read is None:
            return
        loss, turn, batch_id = read
        watch, stats = self.watch, self._inbox.stats()
        self._status.learning_rate = self._status.learning_rate | {block.index: block.learning_rate}
        self._status.loss = self._status.loss | {block.index: loss}
        self._status.samples_per_s = watch.samples_per_s
        self._status.wait_input_fraction = watch.fraction(watch.wait_input_s)
        self._status.wait_output_fraction = watch.fraction(watch.wait_output_s)
        self._status.wait_feedback_fraction = watch.fraction(watch.wait_feedback_s)
        self._status.staleness_mean, self._status.reuse_mean = stats.staleness_mean, stats.reuse_mean
        record = StepRecord(
            block=block.index,
            step=turn,
            batch_id=batch_id,
            loss=loss,
            lr=block.learning_rate,
            samples_per_s=watch.samples_per_s,
            step_time_s=watch.step_time_s,
            wait_input_fraction=self._status.wait_input_fraction,
            wait_output_fraction=self._status.wait_output_fraction,
            wait_feedback_fraction=self._status.wait_feedback_fraction,
            staleness_mean=stats.staleness_mean,
            staleness_max=stats.staleness_max,
            reuse_mean=stats.reuse_mean,
            occupancy_mean=stats.occupancy_mean,
            dropped=stats.dropped,
            samples=watch.samples,
            train_s=watch.train_s,
            sent_bytes=self._outbox.stats.sent_bytes,
            send_s=self._outbox.stats.send_s,
        )
        self._results.metrics.write(record)


def _batch_of(message: Message) -> Batch:
    extras = {name: tensor for name, tensor in message.tensors.items() if name not in (ACTIVATION, LABELS)}
    return Batch(message.batch_id, message.tensors[LABELS], extras, message.batch_rows)
