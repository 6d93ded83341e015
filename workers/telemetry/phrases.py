"""Phrases about a run, shared by tables, messages and pages."""

from collections.abc import Sequence


def count_of(number: int, noun: str, plural: str = "s") -> str:
    """A number of things: "1 block", "2 blocks".

    Args:
        plural: Ending of the noun unless the number is 1.
    """
    return f"{number} {noun}{plural if number != 1 else ''}"


def range_of_blocks(blocks: Sequence[int]) -> str:
    """Consecutive blocks by their indices: "block 0", "blocks 0-3"."""
    return f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]}-{blocks[-1]}"


def range_of_layers(names: Sequence[str]) -> str:
    """Consecutive layers by their names: "conv1", "conv1 .. conv3"."""
    return names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"


def way_of_training(num_blocks: int, method: str, policy: str, schedule: str | None) -> str:
    """How a network of `num_blocks` blocks is trained.

    Args:
        method: Value of `method.name`.
        policy: Value of `buffers.policy`.
        schedule: Value of `training.schedule`; None in runs from before there was one.
    """
    if num_blocks == 1:
        return "back-propagation"
    name = "DGL" if method == "cross_entropy" else method
    return f"{name}{', one block after another' if schedule == 'one_by_one' else ''}, {policy} links"
