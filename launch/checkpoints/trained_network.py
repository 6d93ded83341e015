"""A trained network: the checkpoint that a user means, and its layers and heads under their ordinary names."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from greedypipe.launch.checkpoints.manifest import MANIFEST, newest_valid, read_manifest
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.pipeline.recut import transferred_state
from greedypipe.workers.block_files import block_file, load_blocks, read_block


def find_checkpoint(path: Path) -> Path:
    """Finds the checkpoint that a user means by a folder: of a checkpoint, or of a run, whose newest valid one is meant.

    Checks all of its bytes; damaged checkpoints of a run are reported and passed over.

    Raises:
        ValueError: There is none, or the checkpoint is damaged.
    """
    if (path / MANIFEST).exists():
        read_manifest(path)
        return path
    found = newest_valid(path, lambda text: print(text, file=sys.stderr))
    if found is None:
        raise ValueError(f"{path}: got no complete checkpoint, allowed: the folder of a run or of a checkpoint")
    return found[0]


def network_state(path: Path) -> dict[str, Tensor]:
    """The layers and the classifier of a run or checkpoint, in the network's order.

    Raises:
        ValueError: See `find_checkpoint`.
    """
    return layers_of(load_blocks(find_checkpoint(path)))


def restore(blocks: Sequence[Block], checkpoint: Path, part: Part = WHOLE) -> list[Block]:
    """Gives blocks what a checkpoint holds of their layers and, where it has one behind the same layer, of their head.

    Args:
        part: What of every batch these blocks have, where other replicas have the rest.

    Returns:
        Those whose head is fresh, since the checkpoint was cut elsewhere.

    Raises:
        ValueError: The checkpoint does not hold a whole network.
    """
    saved, fresh = load_blocks(checkpoint), []
    for block in blocks:
        state, head_is_fresh = transferred_state(block, saved)
        block.load_state_dict(state, part)
        fresh += [block] * head_is_fresh
    return fresh


def restore_own(blocks: Sequence[Block], checkpoint: Path) -> None:
    """Gives blocks what a checkpoint of the same cut holds of them; it need not hold any other."""
    for block in blocks:
        block.load_state_dict(read_block(checkpoint / block_file(block.index)))


def layers_of(states: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The ordinary network's state dict, of the states of all blocks."""
    return {name: value for state in states for name, value in state["layers"].items()}


def heads_of(states: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The methods' and heads' parameters as blockN.NAME; the last block's head is the network's own classifier."""
    return {f"block{state['index']}.{name}": value for state in states[:-1] for name, value in state["method"].items()}
