"""A pipeline whose stages are threads of this process: real loops, inboxes, lines and links around blocks of any kind."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.buffers.stats import BufferStats
from greedypipe.pipeline.batch import LABELS
from greedypipe.pipeline.task import Task
from greedypipe.workers.inbox import ACTIVATIONS, FEEDBACK, SLOTS_BEYOND_BUFFER, Awaited, Delivery, Inbox, MessageStream
from greedypipe.workers.lines import Line, Lines, NoLine, ReceivedLine, SentLine
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import DeadEnd, Receiver, Sender
from greedypipe.workers.links.messages import Message, MessageLayout
from greedypipe.workers.placement import Seat
from greedypipe.workers.stage import Results, StageWorker
from greedypipe.workers.telemetry.meter import MetricsFile
from greedypipe.workers.telemetry.status import StageStatus

CPU = torch.device("cpu")
Link = tuple[Sender, Receiver]
MakeLink = Callable[[MessageLayout, int, float], Link]
"""Builds a link from its layout, number of slots and deadline in seconds."""


def direct_link(layout: MessageLayout, slots: int, timeout_s: float) -> Link:
    """A link whose messages arrive at once."""
    return make_inprocess_link(layout, slots=slots, timeout_s=timeout_s)


class Stream:
    """What stage 0 reads: messages that are there from the start."""

    wait_s, slot_bytes = 0.0, 0

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Delivery]:
        return (Delivery(message, 0, 1) for message in self._messages)

    def read_each_once(self) -> None:
        pass

    def stats(self) -> BufferStats:
        return BufferStats(capacity=1)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Cut:
    """Blocks hosted by stages.

    Attributes:
        blocks: All of the pipeline, in order; anything that behaves like a `pipeline.block.Block`.
        starts: First block of each stage.
    """

    blocks: Sequence[Any]
    starts: tuple[int, ...]

    def of(self, stage: int) -> Sequence[Any]:
        """The blocks of a stage."""
        stop = self.starts[stage + 1] if stage + 1 < len(self.starts) else len(self.blocks)
        return self.blocks[self.starts[stage] : stop]


@dataclass(frozen=True)
class ThreadedPipeline:
    """A pipeline of threads.

    Attributes:
        messages: What stage 0 reads; ends with Kind.END.
        forward: Layout of the links to the next stage; `back` that of the links of feedback.
        ahead: Capacity in batches of the buffer before each stage.
        timeout_s: Deadline of every wait.
        make_link: Builds the links in both directions.
    """

    cut: Cut
    task: Task
    messages: Iterable[Message]
    forward: MessageLayout
    back: MessageLayout
    ahead: int
    timeout_s: float
    make_link: MakeLink = direct_link

    def run(self, run_timeout_s: float) -> None:
        """Runs to the end of the stream; blocks.

        Raises:
            TimeoutError: The stages have not ended within `run_timeout_s`: a deadlock, or a limit that is too short.
            ExceptionGroup: Stages have failed.
        """
        later = self.cut.starts[1:]
        ahead = [self.make_link(self.forward, self.ahead + SLOTS_BEYOND_BUFFER, self.timeout_s) for _ in later]
        # The fewest slots that feedback can do with.
        delays = [self.cut.blocks[start - 1].timing.delay for start in later]
        back = [self.make_link(self.back, delay + 1, self.timeout_s) for delay in delays]
        failures: list[Exception] = []

        def work(stage: int, folder: Path) -> None:
            try:
                with ExitStack() as open_parts:
                    self._worker(stage, ahead, back, folder, open_parts).run()
            except Exception as error:
                failures.append(error)

        with TemporaryDirectory() as name:
            threads = [
                threading.Thread(target=work, args=(stage, Path(name)), daemon=True) for stage in range(len(self.cut.starts))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(run_timeout_s)
        if failures:
            raise ExceptionGroup("stages failed", failures)
        if any(thread.is_alive() for thread in threads):
            raise TimeoutError(f"the stages have not ended after {run_timeout_s:g} s")

    def _worker(
        self, stage: int, ahead: Sequence[Link], back: Sequence[Link], folder: Path, open_parts: ExitStack
    ) -> StageWorker:
        blocks = self.cut.of(stage)
        status = StageStatus(Seat(stage, stage), [block.index for block in blocks], 0, "host")
        inbox: MessageStream = Stream(self.messages)
        before: Line = NoLine()
        if stage:
            inbox = self._inbox(ahead[stage - 1][1], self.ahead, stage - 1, status, ACTIVATIONS)
            before = SentLine(back[stage - 1][0], blocks[0].line, 0)
        behind: Line = NoLine()
        if stage < len(back):
            capacity = blocks[-1].timing.delay + 1
            behind = ReceivedLine(self._inbox(back[stage][1], capacity, stage + 1, status, FEEDBACK), CPU)
        outbox = ahead[stage][0] if stage < len(ahead) else DeadEnd()
        metrics = MetricsFile(folder / f"{stage}.jsonl")
        open_parts.callback(metrics.close)
        results = Results(metrics, 99, lambda part: None, lambda batch_id: None, lambda batch_id: None)
        lines = Lines(blocks, before, behind)
        return StageWorker(blocks, inbox, outbox, lines, carried=[LABELS], task=self.task, status=status, results=results)

    def _inbox(self, receiver: Receiver, capacity: int, peer: int, status: StageStatus, awaited: Awaited) -> Inbox:
        config = BuffersConfig(capacity=capacity)
        return Inbox(
            receiver, config, seed=0, status=status, upstream=f"stage {peer}", timeout_s=self.timeout_s, awaited=awaited
        )
