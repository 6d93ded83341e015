"""Pipelines with replicas as threads of this process: real loops, lines, splits and joins over links in memory."""

import copy
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.feedback_speed.threads import Stream
from greedypipe.buffers.replay import BuffersConfig
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.process.connect_edges import StageLinks
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS
from greedypipe.pipeline.block import Block
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.inbox import ACTIVATIONS, FEEDBACK, SLOTS_BEYOND_BUFFER, Awaited, Inbox, MessageStream
from greedypipe.workers.lines import Line, Lines, NoLine, ReceivedLine, SentLine
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.placement import Route, Seat
from greedypipe.workers.stage import Results, StageWorker
from greedypipe.workers.state_rows import joined_state, packed, rows_of, unpacked
from greedypipe.workers.telemetry.meter import MetricsFile
from greedypipe.workers.telemetry.status import StageStatus

CPU, TIMEOUT_S = torch.device("cpu"), 20.0
AHEAD = 2
"""Batches that a buffer holds."""


class Sum:
    """Adds up the gradients of the replicas of one stage, in the order of their numbers."""

    def __init__(self, replicas: int) -> None:
        self._barrier = threading.Barrier(replicas, timeout=TIMEOUT_S)
        self._given: list[list[Tensor | None]] = [[] for _ in range(replicas)]

    def of(self, number: int) -> Any:
        """What `Block.become_replica` wants for a replica."""

        def combine(parameters: Sequence[nn.Parameter]) -> None:
            self._given[number] = [None if one.grad is None else one.grad.clone() for one in parameters]
            self._barrier.wait()
            for parameter, *parts in zip(parameters, *self._given, strict=True):
                assert len({part is None for part in parts}) == 1, "replicas disagree on what has a gradient"
                if parameter.grad is not None:
                    # In its own memory layout, which the optimizer relies on.
                    parameter.grad.copy_(torch.stack(parts).sum(0))
            self._barrier.wait()

        return combine


@dataclass
class Wires:
    """Links in memory, each made by the end that asks first."""

    links: dict[tuple[Seat, Seat], tuple[Sender, Receiver]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def between(self, route: Route, layout: MessageLayout, slots: int) -> tuple[Sender, Receiver]:
        with self.lock:
            place = (route.sender, route.receiver)
            if place not in self.links:
                self.links[place] = make_inprocess_link(layout, slots=slots, timeout_s=TIMEOUT_S)
            return self.links[place]


class WiredLinks(StageLinks):
    """The links of a process of the plan, in memory."""

    def __init__(self, plan: Plan, wires: Wires, status: StageStatus) -> None:
        super().__init__(plan, None, status, CPU)  # type: ignore[arg-type]
        self._wires = wires

    def _receiver(self, route: Route, slots: int, layout: MessageLayout) -> Receiver:
        return self._wires.between(route, layout, AHEAD + SLOTS_BEYOND_BUFFER)[1]

    def _sender(self, route: Route, layout: MessageLayout) -> Sender:
        return self._wires.between(route, layout, AHEAD + SLOTS_BEYOND_BUFFER)[0]


@dataclass
class Replicated:
    """All processes of a run.

    Attributes:
        plans: One for each, since layers are trained in place.
        blocks: Of each.
    """

    plans: list[Plan]
    blocks: list[list[Block]]

    @classmethod
    def of(cls, overrides: Sequence[str], replicas: Sequence[int]) -> "Replicated":
        plan = make_plan(load_config(None, [*overrides, f"placement.replicas={list(replicas)}"]), sum(replicas))
        seats = list(plan.placement.seats())
        plans = [plan.redrawn() for _ in seats]
        blocks = [
            [plan.blueprint.build_block(index, CPU) for index in plan.placement.blocks_of(seat.stage)]
            for plan, seat in zip(plans, seats, strict=True)
        ]
        return cls(plans, blocks)

    @property
    def seats(self) -> list[Seat]:
        return list(self.plans[0].placement.seats())

    def learned(self) -> list[Block]:
        """The blocks that a checkpoint holds."""
        return [block for seat, mine in zip(self.seats, self.blocks, strict=True) if seat.leads_stage for block in mine]

    def states(self) -> list[dict[str, Any]]:
        """What a checkpoint holds of all blocks."""
        found = []
        for leader in (seat for seat in self.seats if seat.leads_stage):
            others = [seat for seat in self.seats if seat.stage == leader.stage and not seat.leads_stage]
            for position, block in enumerate(self.blocks[leader.rank]):
                rows = rows_of(block)
                theirs = [rows_of(self.blocks[seat.rank][position]) for seat in others]
                came = [
                    list(unpacked(packed(part), rows, seat.part)) for seat, part in zip(others, theirs, strict=True) if rows
                ]
                found.append(joined_state(block, rows, came) if came else block.state_dict())
        return found

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Has all processes go on from there."""
        for seat, mine in zip(self.seats, self.blocks, strict=True):
            for block in mine:
                block.load_state_dict(copy.deepcopy(states[block.index]), seat.part)

    def train(self, batches: range, folder: Path, *, stream_ends: bool = True) -> None:
        """Trains on these batches of the stream; blocks.

        Args:
            folder: For metrics, which nobody reads.
            stream_ends: Whether no batch follows, so that what is left of feedback is learned from.
        """
        wires, sums = Wires(), [Sum(count) for count in self.plans[0].placement.replicas]
        for seat, mine in zip(self.seats, self.blocks, strict=True):
            for block in mine if seat.replicas > 1 else ():
                block.become_replica(seat.replica, sums[seat.stage].of(seat.replica))
        with ThreadPoolExecutor(len(self.seats)) as pool:
            runs = [pool.submit(self._run, seat, wires, batches, folder, stream_ends=stream_ends) for seat in self.seats]
            for run in runs:
                run.result()

    def _run(self, seat: Seat, wires: Wires, batches: range, folder: Path, *, stream_ends: bool) -> None:
        torch.set_num_threads(1)
        plan, blocks = self.plans[seat.rank], self.blocks[seat.rank]
        status = StageStatus(seat, [block.index for block in blocks], 0, "host")
        links = WiredLinks(plan, wires, status)
        inbox: MessageStream = Stream(_messages(plan, seat, batches, stream_ends=stream_ends))
        if seat.stage:
            inbox = self._inbox(links.receiver(AHEAD), AHEAD, status, ACTIVATIONS)
        sender, receiver = links.back_sender(), links.back_receiver(AHEAD)
        before: Line = SentLine(sender, blocks[0].line, batches.start) if sender else NoLine()
        behind: Line = NoLine()
        if receiver:
            behind = ReceivedLine(self._inbox(receiver, blocks[-1].timing.delay + 1, status, FEEDBACK), CPU)
        metrics = MetricsFile(folder / f"{seat.label}.jsonl")
        results = Results(metrics, 99, lambda part: None, lambda batch_id: None, lambda batch_id: None)
        StageWorker(
            blocks,
            inbox,
            links.sender(),
            Lines(blocks, before, behind),
            carried=plan.carried_after(seat.stage),
            task=plan.blueprint.task,
            status=status,
            results=results,
        ).run()
        metrics.close()

    def _inbox(self, receiver: Receiver, capacity: int, status: StageStatus, awaited: Awaited) -> Inbox:
        config = BuffersConfig(capacity=capacity)
        return Inbox(receiver, config, seed=0, status=status, upstream="another", timeout_s=TIMEOUT_S, awaited=awaited)


def _messages(plan: Plan, seat: Seat, batches: range, *, stream_ends: bool) -> Iterator[Message]:
    source = BatchSource(plan.config.data, plan.config.training.seed, plan.data)
    for batch in map(source.training_batch, batches):
        tensors = {LABELS: batch.labels, ACTIVATION: batch.images, IMAGE: batch.images}
        yield Message(Kind.TRAIN, batch.batch_id, tensors=tensors).part(seat.part)
    if stream_ends:
        yield Message(Kind.DRAIN, batches.stop)
    yield Message(Kind.END, batches.stop)
