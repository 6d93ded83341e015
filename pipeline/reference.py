"""Synchronous DGL in one loop and one process: the oracle that every other way of running must equal bit for bit."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block


def train(blocks: Sequence[Block], batches: Iterable[tuple[Tensor, Tensor]]) -> list[list[float]]:
    """Trains all blocks on every batch, in the network's order (Belilovsky et al., ICML 2020, Algorithm 1).

    Args:
        blocks: The whole network, in order.
        batches: Pairs of images [N, C, H, W] and labels [N] on the blocks' device.

    Returns:
        The local losses, one list per batch with one number per block.
    """
    losses = []
    for batch_id, (images, labels) in enumerate(batches):
        x, row = images, []
        batch = Batch(batch_id, labels, {IMAGE: images})
        for block in blocks:
            x = block.forward(x, batch)
            loss = block.learn()
            assert loss is not None, "the step budget is used up"
            row.append(float(loss))
        losses.append(row)
    return losses


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
