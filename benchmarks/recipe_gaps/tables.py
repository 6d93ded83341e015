"""What runs of recipes say: accuracies on the test part, and gaps to the reference with intervals."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as students_t

Row = Mapping[str, Any]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of numbers, with half of the width of its 95% interval by Student's t; nan for a single number."""

    mean: float
    half: float
    count: int


@dataclass(frozen=True)
class Found:
    """A recipe in a group; accuracies and gaps in [0, 1] of the test part.

    Attributes:
        final: Of the network's classifier.
        best: Of the exit that was most accurate on the validation part, chosen for every run.
        gap: `final` less that of the reference with the same seed; negative is worse. None for the reference.
        best_gap: The same of `best`, less the classifier of the reference.
        exits: Means of all exits, in order.
        time: Seconds of training over those of the reference with the same seed, median over the seeds; None for the
            reference, and where runs went side by side.
        failed: Causes of the runs that failed.
    """

    group: str
    recipe: str
    final: Interval
    best: Interval
    gap: Interval | None
    best_gap: Interval | None
    exits: tuple[float, ...]
    time: float | None
    failed: tuple[str, ...]


def summarise(rows: Sequence[Row], reference: str) -> list[Found]:
    """Every recipe in every group, in the order in which they come first."""
    pairs = dict.fromkeys((row["group"], row["recipe"]) for row in rows)
    return [_found(rows, group, recipe, reference) for group, recipe in pairs]


def _found(rows: Sequence[Row], group: str, recipe: str, reference: str) -> Found:
    own = _by_seed(rows, group, recipe)
    base = {} if recipe == reference else _by_seed(rows, group, reference)
    both = sorted(own.keys() & base.keys())
    failed = [row["cause"] for row in rows if (row["group"], row["recipe"]) == (group, recipe) and row["cause"]]
    return Found(
        group,
        recipe,
        interval(_final(row) for row in own.values()),
        interval(_best(row) for row in own.values()),
        interval(_final(own[seed]) - _final(base[seed]) for seed in both) if both else None,
        interval(_best(own[seed]) - _final(base[seed]) for seed in both) if both else None,
        tuple(map(statistics.mean, zip(*(row["test"] for row in own.values()), strict=True))),
        _time([(own[seed], base[seed]) for seed in both]),
        tuple(dict.fromkeys(failed)),
    )


def _by_seed(rows: Sequence[Row], group: str, recipe: str) -> dict[int, Row]:
    wanted = (group, recipe)
    return {row["seed"]: row for row in rows if (row["group"], row["recipe"]) == wanted and not row["cause"]}


def _time(pairs: Sequence[tuple[Row, Row]]) -> float | None:
    alone = all(row["at_once"] == 1 for pair in pairs for row in pair)
    return statistics.median(row["train_s"] / base["train_s"] for row, base in pairs) if pairs and alone else None


def _final(row: Row) -> float:
    return float(row["test"][-1])


def _best(row: Row) -> float:
    """Of equally accurate exits the last one."""
    validation = row["validation"]
    chosen = max(range(len(validation)), key=lambda index: (validation[index], index))
    return float(row["test"][chosen])


def points(gap: Interval | None) -> str:
    """Percentage points with half of their interval; empty where there is nothing to compare."""
    if gap is None:
        return ""
    half = "" if math.isnan(gap.half) else f" ± {100 * gap.half:.2f}"
    # The sum with 0 turns a rounded -0.0 into 0.0.
    return f"{round(100 * gap.mean, 2) + 0:+.2f}{half}"


def interval(values: Iterable[float]) -> Interval:
    """Mean and half width; nan of nothing."""
    found = list(values)
    if len(found) < 2:
        return Interval(found[0] if found else math.nan, math.nan, len(found))
    deviation = statistics.stdev(found) / math.sqrt(len(found))
    return Interval(
        statistics.mean(found), float(students_t.ppf((1 + CONFIDENCE) / 2, len(found) - 1)) * deviation, len(found)
    )
