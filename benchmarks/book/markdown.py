"""Markdown from numbers: tables, medians with their range, and the conditions under which something was measured."""

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

TO = "\N{EN DASH}"
"""Between the ends of a range."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns that hold nothing but numbers are right-aligned."""
    columns = list(zip(*rows, strict=True))
    rules = ["---:" if all(_is_number(cell) for cell in cells) else "---" for cells in columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rules, *rows))


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"\**[\d.,() %\N{EN DASH}]*( s)?\**", cell))


def spread(found: Mapping[str, float], form: str = ",.0f") -> str:
    """Median and range of what `benchmarks.engines.timing.spread` returned, as `790 (760 to 801)` with an en dash."""
    middle, least, most = (format(found[key], form) for key in ("median", "min", "max"))
    return f"{middle} ({least}{TO}{most})"


def spread_of(values: Sequence[float], form: str = ",.0f") -> str:
    """`spread` of single measurements."""
    return spread({"median": statistics.median(values), "min": min(values), "max": max(values)}, form)


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f}%"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def at_least(measured: float, target: float | None) -> str:
    """A target that is a lower limit, and whether it was met; empty where there is none."""
    return "" if target is None else f"&ge; {target:g}, {'met' if measured >= target else '**missed**'}"


def within(measured: float, least: float, most: float) -> str:
    """A target that is a range, and whether it was met."""
    return f"{least:g}{TO}{most:g}, {'met' if least <= measured <= most else '**missed**'}"


def paragraphs(text: str, width: int = 120) -> str:
    """The text with its prose wrapped anew, which numbers have made uneven; tables, lists and blocks stay as they are."""
    blocks = [block.strip("\n") for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(block if block[0] in "|`!*" else _wrapped(block, width) for block in blocks)


def _wrapped(block: str, width: int) -> str:
    return textwrap.fill(" ".join(block.split()), width, break_long_words=False, break_on_hyphens=False)


def machine(answer: Mapping[str, Any]) -> str:
    """The machine that an answer was measured on."""
    hardware = answer["hardware"]
    name = re.sub(r"\((R|TM)\)| Processor| CPU", "", hardware["cpu"])
    gpus = [f"{hardware['gpus'].count(gpu)} x {gpu}" for gpu in dict.fromkeys(hardware["gpus"])]
    return ", ".join([f"{hardware['cores']} cores of an {name}", *gpus])


def setup(settings: Sequence[str]) -> str:
    """The network, batch and precision that overrides name, e.g. `Setup: vgg8b at width 0.25, batch 128, fp32`."""
    given = dict(setting.split("=", 1) for setting in settings)
    width = f" at width {given['model.width']}" if "model.width" in given else ""
    precision = given.get("training.precision", "fp32")
    return f"Setup: {given['model.name']}{width}, batch {given['data.batch_size']}, {precision}"


def versions(answer: Mapping[str, Any]) -> str:
    """The versions that an answer was measured with."""
    found = answer["versions"]
    return f"Python {found['python']}, torch {found['torch'].partition('+')[0]}"
