"""One pass over the held-out part: what a process counts, and what follows from the counts of all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.task import Task


def combined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies over all samples; replicas of a stage have each counted a part of them.

    Args:
        parts: `workers.evaluation.Evaluation`s of all processes as dictionaries, in the order of ranks.

    Returns:
        `epoch`, `blocks` (one accuracy per block, in the network's order) and `ensemble`, in [0, 1].
    """
    blocks = sorted({block for part in parts for block in part["correct"]}, key=int)
    last = [part for part in parts if part["ensemble"] is not None]
    return {
        "epoch": parts[0]["epoch"],
        "blocks": [
            _accuracy([(part["correct"][block], part["samples"]) for part in parts if block in part["correct"]])
            for block in blocks
        ],
        "ensemble": _accuracy([(part["ensemble"], part["samples"]) for part in last]),
    }


def is_whole(parts: Sequence[dict[str, Any]], num_samples: int) -> bool:
    """Whether every block has seen all samples; one that was away while they went by has not."""
    seen: dict[str, int] = {}
    for part in parts:
        for block in part["correct"]:
            seen[block] = seen.get(block, 0) + part["samples"]
    return set(seen.values()) == {num_samples}


def _accuracy(counts: list[tuple[int, int]]) -> float:
    correct, samples = (sum(column) for column in zip(*counts, strict=True))
    return correct / max(samples, 1)


@dataclass(frozen=True)
class Evaluation:
    """Result of one pass over the held-out part, as far as one process knows it.

    Attributes:
        epoch: Of stage 0, that the pass followed.
        samples: That this process has seen; with replicas a part of all.
        correct: How many of them each head got right, by block index.
        ensemble: How many all heads together got right; only in the last stage.
    """

    epoch: int
    samples: int
    correct: dict[int, int]
    ensemble: int | None


class Counts:
    """Right answers of one evaluation pass, counted on the device."""

    def __init__(self, blocks: Sequence[int], task: Task, device: torch.device) -> None:
        self._task = task
        self._right = {index: torch.zeros((), dtype=torch.int64, device=device) for index in blocks}
        self._together = torch.zeros((), dtype=torch.int64, device=device)
        self._total = 0

    def add(self, block_index: int, outputs: Tensor, targets: Tensor) -> None:
        """Counts the answers of one block's head for one batch."""
        self._right[block_index] += self._task.hits(outputs, targets).sum()

    def add_ensemble(self, ensemble: Tensor, targets: Tensor) -> None:
        """Counts the answers of all heads together for one batch."""
        self._together += self._task.hits(ensemble, targets).sum()
        self._total += len(targets)

    def read(self) -> tuple[int, dict[int, int], int]:
        """Samples, right answers by block index, and those of the heads up to here together; starts anew. Synchronises."""
        result = self._total, {index: int(count) for index, count in self._right.items()}, int(self._together)
        for count in (*self._right.values(), self._together):
            count.zero_()
        self._total = 0
        return result
