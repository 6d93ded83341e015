"""Throughput over the delay of feedback and the latency of links, against the formula.

Blocks sleep for a known time instead of computing, so that any number of stages fits on any number of cores; loops,
inboxes, lines and links are the real ones. A message may be read so many seconds after it was sent, in both directions.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.engines.timing import spread
from benchmarks.feedback_speed.threads import CPU, Cut, Link, ThreadedPipeline
from greedypipe.pipeline.batch import ACTIVATION, LABELS, TensorSpec
from greedypipe.pipeline.codecs import PlainCodec
from greedypipe.pipeline.feedback import NOTHING, Entry, Feedback, Learned, Reach, timing_of
from greedypipe.pipeline.task import Classification
from greedypipe.workers.links.inprocess import InProcessReceiver, InProcessSender, Passage
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.slots import Slot, SlotPool, new_slot

TASK = Classification((1, 1, 1), 2)
FORWARD = MessageLayout(1, {Kind.TRAIN: (TensorSpec(ACTIVATION, (2,), torch.float32), TASK.target)})
BACK = MessageLayout(1, {Kind.FEEDBACK: (TensorSpec("result", (2,), torch.float32),)})
FORWARD_SHARE = 1 / 3
"""Of a block's time; learning has the rest."""
WARMUP_TURNS, TIMEOUT_S = 20, 60.0
AHEAD = 16
"""Batches that a buffer holds: more than are ever on their way, so that room for them costs no time."""


@dataclass(frozen=True)
class Setting:
    """A pipeline of equal stages, one block each.

    Attributes:
        delay: `feedback.delay`, the same at all boundaries.
        latency_s: From sending a message to when it can be read, in each direction.
        turn_s: Time of a stage for one batch.
    """

    stages: int
    delay: int
    latency_s: float
    turn_s: float

    @property
    def formula_s(self) -> float:
        """Seconds per batch in the long run: those of the slowest circuit, which goes up some hops and down again. It has
        the time of the stages that it touches, and one batch for each line of feedback and the next turn."""
        return self._critical[0]

    @property
    def circuit_turns(self) -> int:
        """Turns after which the schedule repeats."""
        return self._critical[1]

    @property
    def _critical(self) -> tuple[float, int]:
        circuits = [(hops, hops * self.delay + 1) for hops in range(self.stages)]
        return max((((hops + 1) * self.turn_s + 2 * hops * self.latency_s) / turns, turns) for hops, turns in circuits)

    def measure(self, seconds: float) -> float:
        """Seconds per batch in about so many seconds; blocks."""
        rounds = max(1, math.ceil(seconds / self.formula_s / self.circuit_turns))
        turns = rounds * self.circuit_turns
        warmup = WARMUP_TURNS if self.delay else 1
        blocks = [Sleeper(index, self) for index in range(self.stages)]
        pipeline = ThreadedPipeline(
            Cut(blocks, tuple(range(self.stages))),
            TASK,
            _messages(warmup + turns + 1),
            FORWARD,
            BACK,
            ahead=AHEAD,
            timeout_s=TIMEOUT_S,
            make_link=self._link,
        )
        pipeline.run(TIMEOUT_S + 2 * (warmup + turns) * self.formula_s)
        ended = blocks[0].ended
        return (ended[warmup + turns] - ended[warmup]) / turns

    def _link(self, layout: MessageLayout, slots: int, timeout_s: float) -> Link:
        pool = SlotPool(slots, lambda: new_slot(layout))
        passage = LatePassage(self.latency_s, timeout_s)
        sender = InProcessSender(layout, pool, passage, timeout_s=timeout_s, peer="the receiver")
        return sender, InProcessReceiver(pool, passage)


class LatePassage(Passage):
    """Messages arrive a constant time after they were sent; any number may be on their way."""

    def __init__(self, latency_s: float, timeout_s: float) -> None:
        super().__init__("the sender", "the receiver", timeout_s)
        self._latency_s = latency_s
        self._arrivals: deque[float] = deque()

    def put(self, slot: Slot) -> None:
        self._arrivals.append(time.perf_counter() + self._latency_s)
        super().put(slot)

    def get(self) -> Slot:
        slot = super().get()
        time.sleep(max(0.0, self._arrivals.popleft() - time.perf_counter()))
        return slot


class Sleeper:
    """A block that sleeps, and sends something back in every turn."""

    device, layers, learning_rate = CPU, (), 0.0
    relays, finished, drain_turns = False, False, 0
    total_steps = 2**40

    def __init__(self, index: int, setting: Setting) -> None:
        self.index, self.codec = index, PlainCodec()
        self.timing = timing_of(index, Reach.NEXT, (setting.delay,) * (setting.stages - 1))
        self.line: deque[Entry] = deque([NOTHING] * self.timing.delay_before)
        self.turn = self.step = 0
        self.ended: list[float] = []
        """When each turn was over."""
        self._seconds = setting.turn_s
        self._result = Entry({"result": torch.zeros(1, 2)}) if self.timing.sends else NOTHING

    def forward(self, x: Tensor, batch: Any) -> Tensor:
        time.sleep(self._seconds * FORWARD_SHARE)
        self.turn += 1
        return self.codec.give_out(x.clone())

    def learn(self, feedback: Feedback, *, drains: bool = False) -> Learned:
        time.sleep(self._seconds * (1 - FORWARD_SHARE))
        self.ended.append(time.perf_counter())
        return Learned(None, self._result)


def _messages(batches: int) -> Iterator[Message]:
    tensors = {ACTIVATION: torch.zeros(1, 2), LABELS: torch.zeros(1, dtype=torch.int64)}
    for batch_id in range(batches):
        yield Message(Kind.TRAIN, batch_id, tensors=tensors)
    yield Message(Kind.END, batches)


def summarise(setting: Setting, periods: list[float]) -> dict[str, Any]:
    """One row: seconds per batch by measurement and by formula, and the throughput over the formula's."""
    return {
        "stages": setting.stages,
        "delay": setting.delay,
        "latency_s": setting.latency_s,
        "turn_s": setting.turn_s,
        "repeats": len(periods),
        "formula_s": setting.formula_s,
        "measured_s": spread(periods),
        "throughput_over_formula": spread([setting.formula_s / period for period in periods]),
    }
