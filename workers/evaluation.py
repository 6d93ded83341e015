"""One pass over the held-out part: the counts of a process, and the accuracies from the counts of all processes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from greedypipe.pipeline.task import Task
from greedypipe.workers.telemetry.records import EvaluationPart
from greedypipe.workers.telemetry.results import Evaluation


def combined(parts: Sequence[EvaluationPart]) -> Evaluation:
    """Accuracies over all samples; each replica of a stage has counted a part of them.

    Args:
        parts: Results of all processes, in the order of ranks.
    """
    blocks = sorted({block for part in parts for block in part.correct})
    return Evaluation(
        parts[0].epoch,
        [_accuracy([(part.correct[block], part.samples) for part in parts if block in part.correct]) for block in blocks],
        _accuracy([(part.ensemble, part.samples) for part in parts if part.ensemble is not None]),
        [_mean([(part.loss[block], part.samples) for part in parts if block in part.loss]) for block in blocks],
    )


def is_whole(parts: Sequence[EvaluationPart], num_samples: int) -> bool:
    """Whether every block has seen all samples; a block whose process restarted during the pass has not."""
    seen: dict[int, int] = {}
    for part in parts:
        for block in part.correct:
            seen[block] = seen.get(block, 0) + part.samples
    return set(seen.values()) == {num_samples}


def _accuracy(counts: list[tuple[int, int]]) -> float:
    samples = sum(samples for _, samples in counts)
    return sum(correct for correct, _ in counts) / max(samples, 1)


def _mean(sums: list[tuple[float, int]]) -> float | None:
    """The mean over all samples, from sums over parts of them; None if there are none, or it is not finite."""
    samples = sum(samples for _, samples in sums)
    mean = sum(total for total, _ in sums) / samples if samples else math.nan
    return mean if math.isfinite(mean) else None


@dataclass(frozen=True)
class Counted:
    """The counts of a process in one pass: the fields of EvaluationPart."""

    samples: int
    correct: dict[int, int]
    ensemble: int
    loss: dict[int, float]


class Counts:
    """Correct answers and losses of one evaluation pass, summed on the device."""

    def __init__(self, blocks: Sequence[int], task: Task, device: torch.device) -> None:
        self._task = task
        self._right = {index: torch.zeros((), dtype=torch.int64, device=device) for index in blocks}
        self._loss = {index: torch.zeros((), dtype=torch.float64, device=device) for index in blocks}
        self._together = torch.zeros((), dtype=torch.int64, device=device)
        self._total = 0

    def add(self, block_index: int, outputs: Tensor, targets: Tensor) -> None:
        """Counts the answers of one block's head for one batch."""
        self._right[block_index] += self._task.hits(outputs, targets).sum()
        self._loss[block_index] += self._task.surprise(outputs, targets, "none").double().sum()

    def add_ensemble(self, ensemble: Tensor, targets: Tensor) -> None:
        """Counts the answers of all heads together for one batch."""
        self._together += self._task.hits(ensemble, targets).sum()
        self._total += len(targets)

    def read(self) -> Counted:
        """All counts, those of the ensemble up to this stage; resets them. Synchronises with the device, once."""
        together, *rest = torch.stack(
            [one.double() for one in (self._together, *self._right.values(), *self._loss.values())]
        ).tolist()
        right, loss = rest[: len(self._right)], rest[len(self._right) :]
        result = Counted(
            self._total,
            {index: int(count) for index, count in zip(self._right, right, strict=True)},
            int(together),
            dict(zip(self._loss, loss, strict=True)),
        )
        for count in (*self._right.values(), *self._loss.values(), self._together):
            count.zero_()
        self._total = 0
        return result
