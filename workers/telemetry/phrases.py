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


def shown(text: object) -> str:
    """A text for a terminal: characters that a terminal would obey rather than show are spelt out, "\\x1b".

    Line ends and tabs stay. Names of files, classes and layers, and whatever another process has written, come through here.
    """
    return str(text).translate(_CONTROLS)


_OBEYED = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
"""Control characters, marks that turn the direction of writing around, and halves of characters."""
_CONTROLS = {code: ascii(chr(code))[1:-1] for code in _OBEYED if chr(code) not in "\n\t"}
