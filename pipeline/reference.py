"""The pipeline in one loop and one process: the oracle that every other way of running must equal bit for bit."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import NOTHING, Entry
from greedypipe.pipeline.order import Act, turn_order

Loaded = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Mapping[str, Tensor]]
"""A training batch: images, labels, and extras if there are any."""


def train(blocks: Sequence[Block], batches: Iterable[Loaded], *, stream_ends: bool = True) -> list[list[float]]:
    """Trains all blocks on every batch, in the network's order (Belilovsky et al., ICML 2020, Algorithm 1).

    Methods that live on feedback learn, at the end, from what is left of it.

    Args:
        blocks: The whole network, in order.
        batches: Images [N, C, H, W] and labels [N] on the blocks' device, and extras by name where a method needs more of a
            batch than the image.
        stream_ends: Whether no batch follows; otherwise feedback stays on its way, and another call goes on from here.

    Returns:
        The local losses, one list per batch with one number per block.
    """
    losses = []
    lines = [deque(after.line) for after in blocks[1:]]
    order = turn_order([block.timing for block in blocks])
    for batch_id, (x, labels, *extras) in enumerate(batches):
        row = [float("nan")] * len(blocks)
        batch = Batch(batch_id, labels, {IMAGE: x, **(extras[0] if extras else {})})
        for act, position in order:
            if act is Act.FORWARD:
                x = blocks[position].forward(x, batch)
            else:
                loss = _learn(blocks, lines, position)
                row[position] = float("nan") if loss is None else float(loss)
        losses.append(row)
    for position in reversed(range(len(blocks) if stream_ends else 0)):
        for _ in range(blocks[position].drain_turns):
            _learn(blocks, lines, position, drains=True)
    return losses


def _learn(blocks: Sequence[Block], lines: list[deque[Entry]], position: int, *, drains: bool = False) -> Tensor | None:
    block = blocks[position]
    feedback = lines[position].popleft() if block.timing.reads else NOTHING
    loss, back = block.learn(feedback, drains=drains)
    if block.timing.sends and (block.relays or not drains):
        lines[position - 1].append(back)
    return loss


def evaluate(blocks: Sequence[Block], batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[float], float]:
    """Accuracy of every block's head, and of the heads together, in [0, 1].

    Metric and ensemble rule are spelled out here, since the code under test takes them from `pipeline.task`.

    Returns:
        One accuracy per block, and that of DGL's ensemble: the sum of the logits, later blocks weighted by 2^n.
    """
    correct, together, total = [0] * len(blocks), 0, 0
    for images, labels in batches:
        x, ensemble = images, torch.zeros(())
        for position, block in enumerate(blocks):
            x, logits = block.predict(x)
            correct[position] += int((logits.argmax(1) == labels).sum())
            ensemble = ensemble + logits * 2.0**block.index
        together += int((ensemble.argmax(1) == labels).sum())
        total += len(labels)
    return [count / total for count in correct], together / total
