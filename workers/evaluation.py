"""One pass over the held-out part: what a process counts, and what follows from the counts of all processes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from greedypipe.pipeline.block import Block
from greedypipe.workers.telemetry.records import EvaluationPart
from greedypipe.workers.telemetry.results import Evaluation


def combined(parts: Sequence[EvaluationPart]) -> Evaluation:
    """Accuracies over all samples; replicas of a stage have each counted a part of them.

    Args:
        parts: Of all processes, in the order of ranks.
    """
    blocks = sorted({block for part in parts for block in part.correct})
    return Evaluation(
        parts[0].epoch,
        [_accuracy([(part.correct[block], part.samples) for part in parts if block in part.correct]) for block in blocks],
        _accuracy([(part.ensemble, part.samples) for part in parts if part.ensemble is not None]),
    )


def is_whole(parts: Sequence[EvaluationPart], num_samples: int) -> bool:
    """Whether every block has seen all samples; one that was away while they went by has not."""
    seen: dict[int, int] = {}
    for part in parts:
        for block in part.correct:
            seen[block] = seen.get(block, 0) + part.samples
    return set(seen.values()) == {num_samples}


def _accuracy(counts: list[tuple[int, int]]) -> float:
    correct, samples = (sum(column) for column in zip(*counts, strict=True))
    return correct / max(samples, 1)


class Counts:
    """Correct predictions of one evaluation pass, counted on the device."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        device = blocks[0].device
        self._correct = {block.index: torch.zeros((), dtype=torch.int64, device=device) for block in blocks}
        self._ensemble = torch.zeros((), dtype=torch.int64, device=device)
        self._total = 0

    def add(self, block_index: int, logits: Tensor, labels: Tensor) -> None:
        self._correct[block_index] += (logits.argmax(1) == labels).sum()

    def add_ensemble(self, ensemble: Tensor, labels: Tensor) -> None:
        self._ensemble += (ensemble.argmax(1) == labels).sum()
        self._total += len(labels)

    def read(self) -> tuple[int, dict[int, int], int]:
        """Samples, how many of them each block's head got right, and the heads up to here together; starts anew.
        Synchronises."""
        result = self._total, {index: int(count) for index, count in self._correct.items()}, int(self._ensemble)
        for count in (*self._correct.values(), self._ensemble):
            count.zero_()
        self._total = 0
        return result
