"""Simulates asynchronous DGL under a given order of turns: all blocks in one process, deterministic, without clocks.

`python -m benchmarks.staleness` uses it to measure what staleness costs in accuracy.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block


@dataclass(frozen=True)
class Handover:
    """One batch between two blocks: the activation that the first one sends, and the tensors that later methods need."""

    activation: Tensor
    batch: Batch


class HandoverRead(Protocol):
    """One read of a store, such as `buffers.replay.Read`."""

    @property
    def item(self) -> Handover: ...
    def done(self) -> None: ...


class Store(Protocol):
    """The buffer between two blocks, such as `buffers.replay.ReplayBuffer`."""

    def insert(self, item: Handover, timeout_s: float) -> None: ...
    def try_read(self) -> HandoverRead | None: ...


def lockstep(num_blocks: int) -> Iterator[int]:
    """Every block once per round, in order: synchronous DGL.

    0 1 2 | 0 1 2 | 0 1 2 ...
    """
    while True:
        yield from range(num_blocks)


def random_order(speeds: Sequence[float], seed: int) -> Iterator[int]:
    """Blocks drawn with probabilities proportional to `speeds`: asynchronous DGL (Belilovsky et al., Algorithm 2).

    A warm-up of two turns each, as in the published code, fills the buffers first:

    0 0 1 1 2 2 | 1 0 2 2 0 ...
    """
    generator = random.Random(seed)
    for block in range(len(speeds)):
        yield from (block, block)
    while True:
        yield generator.choices(range(len(speeds)), weights=speeds)[0]


def simulate(
    blocks: Sequence[Block], batches: Iterator[tuple[Tensor, Tensor]], stores: Sequence[Store], order: Iterable[int]
) -> list[int]:
    """Gives each block its turns until all have used up their step budgets (Belilovsky et al., Algorithm 2).

    A block whose store has nothing to read misses its turn. A finished block still sends activations, computed with
    frozen weights, so that slower ones behind it can finish.

    Args:
        blocks: The whole network, in order.
        batches: Endless pairs of images [N, C, H, W] and labels [N] on the blocks' device, read by block 0 alone.
        stores: stores[i] is the buffer between blocks i and i + 1. A queue must have room whenever `order` gives its
            producer a turn, else it raises TimeoutError.
        order: Endless block indices: `lockstep` or `random_order`.

    Returns:
        Turns taken per block, missed ones not counted.
    """
    turns = [0] * len(blocks)
    for index in order:
        if all(block.finished for block in blocks):
            break
        turns[index] += _take_turn(blocks[index], index, batches, stores)
    return turns


def _take_turn(block: Block, index: int, batches: Iterator[tuple[Tensor, Tensor]], stores: Sequence[Store]) -> bool:
    read = None
    if index == 0:
        images, labels = next(batches)
        item = Handover(images, Batch(-1, labels, {IMAGE: images}))
    else:
        read = stores[index - 1].try_read()
        if read is None:
            return False
        item = read.item
    activation = block.forward(item.activation, item.batch)
    if index < len(stores):
        stores[index].insert(Handover(activation, item.batch), timeout_s=0.0)
    block.learn()
    if read:
        read.done()
    return True
