"""Figures under the keys that all trackers use: by block, so that they are the same for any number of processes."""

from collections.abc import Iterator, Mapping
from typing import Any

from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation

OF_STAGE = ("samples_per_s", "wait_input_fraction", "wait_output_fraction", "staleness_mean", "reuse_mean")
THROUGHPUT = "throughput/samples_per_s"


def block_values(row: StageRow, num_blocks: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Every block of a stage with its figures, those of the stage included: blockB/loss, blockB/samples_per_s and so on.

    The last block has those of the whole pipeline as well: what has passed through it has passed through all.
    """
    for block, loss in row.loss.items():
        figures = {"loss": loss, **{key: getattr(row, key) for key in OF_STAGE}}
        if block in row.learning_rate:
            figures["learning_rate"] = row.learning_rate[block]
        values = {f"block{block}/{key}": value for key, value in figures.items()}
        if block == num_blocks - 1:
            values[THROUGHPUT] = row.samples_per_s
        yield block, values


def evaluation_values(evaluation: Evaluation, best: float) -> dict[str, float]:
    """Accuracy and mean loss on the held-out samples, of every head, of the classifier and of the ensemble."""
    values = {f"accuracy/block{block}": accuracy for block, accuracy in enumerate(evaluation.blocks)}
    values |= {f"heldout_loss/block{block}": loss for block, loss in enumerate(evaluation.losses) if loss is not None}
    if evaluation.losses and (final := evaluation.losses[-1]) is not None:
        values["heldout_loss/final"] = final
    return values | {
        "accuracy/final": evaluation.blocks[-1],
        "accuracy/ensemble": evaluation.ensemble,
        "accuracy/best": best,
    }


def hyperparameters(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, bool | float | str]:
    """Every key of the configuration as section.key; lists and mappings as text, and without keys that are not set."""
    flat = {f"{section}.{key}": value for section, keys in settings.items() for key, value in keys.items()}
    plain = (bool, int, float, str)
    return {key: value if isinstance(value, plain) else str(value) for key, value in flat.items() if value is not None}
