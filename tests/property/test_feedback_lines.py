"""Feedback never deadlocks and loses nothing: stages as threads over real links, for any cut, delays, capacities and end."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.feedback_speed.threads import CPU, Cut, ThreadedPipeline
from greedypipe.pipeline.batch import ACTIVATION, LABELS, TensorSpec
from greedypipe.pipeline.codecs import PlainCodec
from greedypipe.pipeline.feedback import NOTHING, Entry, Feedback, Learned, Reach, timing_of
from greedypipe.pipeline.task import Classification
from greedypipe.workers.links.messages import Kind, Message, MessageLayout

TASK, TIMEOUT_S = Classification((1, 1, 1), 2), 5.0
FORWARD = MessageLayout(
    1,
    {
        Kind.TRAIN: (TensorSpec(ACTIVATION, (2,), torch.float32), TASK.target),
        Kind.EVALUATE: (TensorSpec(ACTIVATION, (2,), torch.float32), TASK.target, TASK.ensemble),
    },
)
BACK = MessageLayout(1, {Kind.FEEDBACK: (TensorSpec("about", (), torch.float32),)})


@dataclass(frozen=True)
class Case:
    """A pipeline and what it is sent.

    Attributes:
        starts: First block of each stage.
        ahead: Slots of the buffer before each stage.
        passes: Batches before which an evaluation pass of so many batches stands.
        marks: Batches before which a mark stands.
        stops: Whether the run is told to stop, rather than coming to its end.
    """

    starts: tuple[int, ...]
    delays: tuple[int, ...]
    reach: Reach
    drains: bool
    ahead: int
    batches: int
    passes: dict[int, int]
    marks: frozenset[int]
    stops: bool

    @property
    def blocks(self) -> int:
        return len(self.delays) + 1

    def messages(self) -> Iterator[Message]:
        row, labels = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
        for batch_id in range(self.batches):
            if batch_id in self.passes:
                yield from self._pass(self.passes[batch_id])
            if batch_id in self.marks:
                yield Message(Kind.CHECKPOINT, batch_id)
            yield Message(Kind.TRAIN, batch_id, tensors={ACTIVATION: row, LABELS: labels})
        if self.stops:
            yield Message(Kind.CHECKPOINT, self.batches)
        else:
            yield Message(Kind.DRAIN, self.batches)
            yield from self._pass(3)
        yield Message(Kind.END, self.batches)

    def _pass(self, batches: int) -> Iterator[Message]:
        tensors = {
            ACTIVATION: torch.zeros(1, 2),
            LABELS: torch.zeros(1, dtype=torch.int64),
            TASK.ensemble.name: torch.zeros(1, 2),
        }
        for batch_id in range(batches):
            yield Message(Kind.EVALUATE, batch_id, tensors=tensors)
        yield Message(Kind.EVALUATED, 0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    delays = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple))
    blocks, batches = len(delays) + 1, draw(st.integers(1, 7))
    inner = draw(st.sets(st.integers(1, blocks - 1)))
    reach = draw(st.sampled_from([Reach.NEXT, Reach.LAST]))
    return Case(
        starts=(0, *sorted(inner)),
        delays=delays,
        reach=reach,
        drains=reach is Reach.LAST and draw(st.booleans()),
        ahead=draw(st.integers(1, 3)),
        batches=batches,
        passes=draw(st.dictionaries(st.integers(0, batches), st.integers(1, 6), max_size=2)),
        marks=draw(st.frozensets(st.integers(0, batches), max_size=2)),
        stops=draw(st.booleans()),
    )


class Fake:
    """A block that computes nothing, and notes what the feedback that it reads is about."""

    device, layers, learning_rate = CPU, (), 0.0
    total_steps = 99

    def __init__(self, index: int, case: Case) -> None:
        self.index, self.codec = index, PlainCodec()
        self.timing = timing_of(index, case.reach, case.delays)
        self.relays = case.reach is Reach.LAST
        self.drain_turns = self.timing.lag if case.drains else 0
        self.line: deque[Entry] = deque([NOTHING] * self.timing.delay_before)
        self.finished = False
        self.turn = self.step = self.learned = 0
        self.read: list[int | None] = []

    def forward(self, x: Tensor, batch: Any) -> Tensor:
        self.turn += 1
        return self.codec.give_out(x.clone())

    def learn(self, feedback: Feedback, *, drains: bool = False) -> Learned:
        about = int(feedback["about"]) if feedback else None
        self.read.append(about)
        sent = about if self.relays and self.timing.reads else self.learned
        self.learned += 1
        is_empty = sent is None or not self.timing.sends
        return Learned(None, NOTHING if is_empty else Entry({"about": torch.tensor([float(sent or 0)])}))

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.codec.give_out(x.clone()), torch.zeros(1, 2)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_block_reads_about_the_batch_of_its_lag_before_and_the_run_ends(case: Case) -> None:
    blocks = [Fake(index, case) for index in range(case.blocks)]
    pipeline = ThreadedPipeline(
        Cut(blocks, case.starts), TASK, case.messages(), FORWARD, BACK, ahead=case.ahead, timeout_s=TIMEOUT_S
    )
    pipeline.run(3 * TIMEOUT_S)
    for block in blocks:
        drained = block.drain_turns if not case.stops else 0
        turns = range(case.batches + drained)
        about = [turn - block.timing.lag for turn in turns] if block.timing.reads else [-1 for _ in turns]
        assert block.read == [batch if 0 <= batch < case.batches else None for batch in about]
