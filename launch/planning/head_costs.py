"""What heads take of the blocks' work: multiply-adds, and time on this process's device."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from greedypipe.launch.planning.layer_costs import random_batch, random_input
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.method import Sample, Turn
from greedypipe.pipeline.operations import operations
from greedypipe.pipeline.trunk import Generator, Trunk, tapped
from greedypipe.workers.devices.current import waiting_for

ROUNDS = 3


@dataclass(frozen=True)
class HeadCost:
    """Of one block, or of several together.

    Attributes:
        head_macs: Multiply-adds per batch of what the method has beside the layers: head, decoder, projection.
        macs: Of the whole turn.
        head_s: Seconds per batch of the same.
        seconds: Of the whole turn.
    """

    head_macs: float = 0.0
    macs: float = 0.0
    head_s: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "HeadCost") -> "HeadCost":
        return HeadCost(
            self.head_macs + other.head_macs,
            self.macs + other.macs,
            self.head_s + other.head_s,
            self.seconds + other.seconds,
        )

    def __str__(self) -> str:
        return f"{self.head_macs / max(self.macs, 1):.0%} / {self.head_s / self.seconds if self.seconds else 0:.0%}"


def head_costs(plan: Plan, device: torch.device) -> list[HeadCost]:
    """Trains each block of the plan's cut for a few turns on noise, and its head alone on the activation.

    The blocks are copies. The classifier is the network's own, and no head. Of methods with feedback it is turns in which
    nothing has come. Blocks until all is measured.
    """
    trial = plan.blueprint.for_trials()
    batch = random_batch(plan, device)
    found = []
    for index in range(trial.num_blocks):
        x = random_input(trial, index, batch, device)
        block = trial.build_block(index, device)
        turn = _turn_of(block, x, batch)
        macs, seconds = _measured(turn, device)
        alone = (0.0, 0.0) if block.site.is_last else _measured(_turn_of_head(block, x, batch), device)
        found.append(HeadCost(alone[0], macs, alone[1], seconds))
    return found


def _turn_of(block: Block, x: torch.Tensor, batch: Batch) -> Callable[[], None]:
    def turn() -> None:
        block.forward(x, batch)
        block.learn()

    return turn


def _turn_of_head(block: Block, x: torch.Tensor, batch: Batch) -> Callable[[], None]:
    """The method's part of a turn, as far as the gradient by the activation."""
    trunk = Trunk(block.layers, block.precision, Generator(block.device, 0, block.index), block.device)
    with torch.no_grad(), tapped(block.method.taps()) as inner:
        h = trunk.run(x)
    taps = tuple(one.detach().requires_grad_() for one in inner)

    def turn() -> None:
        leaf = h.detach().requires_grad_(block.method.trains_layers)
        sample = Sample(batch.labels, batch.extras, input=x, output=leaf, trunk=trunk, inner=taps)
        with block.precision.autocast(block.device, caches=False):
            block.method.learn(Turn(0, sample))

    return turn


def _measured(turn: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Multiply-adds and median seconds of a turn."""
    counted = operations(turn)  # warms up as well
    taken, synchronise = [], waiting_for(device)
    for _ in range(ROUNDS):
        synchronise()
        started = time.perf_counter()
        turn()
        synchronise()
        taken.append(time.perf_counter() - started)
    return counted / 2, statistics.median(taken)
