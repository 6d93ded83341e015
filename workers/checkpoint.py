"""Parameters on disk: one file per block, named by the block's index, never by rank."""

import os
from pathlib import Path
from typing import Any

import torch

from pipeline.block import Block


def save_block(folder: Path, block: Block) -> None:
    """Writes a block's state aside and renames it, so that a file of that name is always whole. Blocks for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, block.index)
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        torch.save(block.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_blocks(folder: Path) -> list[dict[str, Any]]:
    """Reads the states of all blocks, in the network's order, onto the CPU.

    Raises:
        ValueError: No block or not every block is there.
    """
    states = []
    while (path := _path(folder, len(states))).is_file():
        states.append(torch.load(path, map_location="cpu", weights_only=True))
    found = len(list(folder.glob("block*.pt")))
    if not states or found != len(states):
        raise ValueError(f"{folder} does not hold the blocks of a whole network: {found} files, block {len(states)} missing")
    return states


def _path(folder: Path, block_index: int) -> Path:
    return folder / f"block{block_index}.pt"
