"""Synchronous DGL in one loop and one process: the oracle that every other way of running must equal bit for bit."""

from collections.abc import Iterable, Sequence

from torch import Tensor

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
    for images, labels in batches:
        x, row = images, []
        for block in blocks:
            x = block.forward(x)
            row.append(float(block.learn(labels, images if block.needs_image else None)))
        losses.append(row)
    return losses


def evaluate(blocks: Sequence[Block], batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[float], float]:
    """Accuracy of every block's head, and of the heads together, in [0, 1].

    Returns:
        One accuracy per block, and the accuracy of `ensemble` over all of them.
    """
    correct, together, total = [0] * len(blocks), 0, 0
    for images, labels in batches:
        x, ensemble = images, None
        for position, block in enumerate(blocks):
            x, logits = block.predict(x)
            correct[position] += int((logits.argmax(1) == labels).sum())
            ensemble = add_to_ensemble(ensemble, logits, block.index)
        assert ensemble is not None
        together += int((ensemble.argmax(1) == labels).sum())
        total += len(labels)
    return [count / total for count in correct], together / total


def add_to_ensemble(ensemble: Tensor | None, logits: Tensor, block_index: int) -> Tensor:
    """DGL's ensemble: the sum of the heads' logits weighted by 2^n, later blocks counting more.

    The published weights are divided by their sum, which no argmax sees.
    """
    weighted = logits * 2.0**block_index
    return weighted if ensemble is None else ensemble + weighted
