"""Numbers that no key of a configuration can mean, whatever its own limits are."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

LARGEST_INTEGER, LARGEST_SEED, LARGEST_FRACTION = 2**31 - 1, 2**63 - 1, 1e9
OPTIONS = "options"
"""Arguments of a user's own object, which may be anything."""


def impossible_numbers(config: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Numbers that are not finite or too large for any key: each one's section.key, and what is wrong.

    Args:
        config: Sections of keys, as they were understood: "1e400" in quotes is a text to YAML and infinity to a key.
    """
    for section, keys in config.items():
        for name, value in keys.items():
            if name != OPTIONS and (problem := _problem(name, value)):
                yield f"{section}.{name}", problem


def _problem(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return next(filter(None, (_problem(name, one) for one in value)), "")
    if isinstance(value, int):
        largest = LARGEST_SEED if name == "seed" else LARGEST_INTEGER
        return f"got {_short(value)}, allowed: at most {largest:,}" if abs(value) > largest else ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"got {value}, allowed: a finite number"
        return f"got {value}, allowed: at most {LARGEST_FRACTION:,.0f}" if abs(value) > LARGEST_FRACTION else ""
    return ""


def _short(value: int) -> str:
    """Python refuses to write out integers of thousands of digits."""
    return str(value) if value.bit_length() < 100 else f"an integer of {value.bit_length()} bits"
