"""One evaluation pass from what the processes of a run have counted."""

from collections.abc import Sequence
from typing import Any


def combined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies over all samples; replicas of a stage have each counted a part of them.

    Args:
        parts: `workers.stage.Evaluation`s of all processes as dictionaries, in the order of ranks.

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
    }  # fmt: skip


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
