"""How hard a trained network finds the samples that it was trained on, for another run's curriculum."""

from pathlib import Path

import numpy as np

from greedypipe.launch.checkpoints.trained_blocks import plan_of, trained_blocks
from greedypipe.pipeline.exits import collect
from greedypipe.workers.data.source import BatchSource


def write_difficulties(checkpoint: Path, overrides: list[str], file: Path) -> int:
    """Writes the loss of a checkpoint's last head for every training sample of the run's data, in their order, as they are
    stored: float32 [N], by numpy. Blocks for the network.

    Returns:
        How many samples there are.

    Raises:
        ValueError: One line: the data are missing, or the file exists already or cannot be written.
    """
    if file.suffix != ".npy" or file.exists():
        raise ValueError(f"--difficulty: got {file}, allowed: the name of a new file that ends with .npy")
    plan = plan_of(checkpoint, overrides)
    with BatchSource(plan.config.data, plan.config.training.seed, plan.data) as source:
        stored = source.stored_training_batches()
        found = collect(trained_blocks(plan, checkpoint), ((batch.images, batch.labels) for batch in stored))
    losses = plan.blueprint.task.surprise(found.logits[-1], found.labels, "none")
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, losses.float().cpu().numpy(), allow_pickle=False)
    return len(losses)
