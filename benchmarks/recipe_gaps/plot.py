"""Gaps of recipes to the reference, with intervals, and what they cost, as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recipe_gaps.question import Question
from benchmarks.recipe_gaps.tables import Found, summarise

Row = Mapping[str, Any]
Point = tuple[float, float]


def front(points: Sequence[Point]) -> list[Point]:
    """Those of (cost, accuracy) that no other one beats in one of both and equals in the other, by cost."""
    best: list[Point] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def plot_gaps(rows: Sequence[Row], costs: Sequence[Row], question: Question, path: Path) -> None:
    """A line per recipe over the groups, or, where there is one group, a row per recipe and a point per recipe over its
    multiply-adds, with the Pareto front; in percentage points. Does nothing where no run can be compared."""
    found = [one for one in summarise(rows, question.reference) if one.gap]
    if not found:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(one.group for one in found))
    if len(groups) > 1:
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        _lines(axes, found, groups, question.reference)
    else:
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, max(3.2, 1.4 + 0.4 * len(found))), layout="constrained")
        _bars(left, found, question.reference)
        macs = {cost["recipe"]: cost["macs"] for cost in costs if cost["group"] == groups[0]}
        _scatter(right, found, [macs[one.recipe] / macs[question.reference] - 1 for one in found])
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(axes: Any, found: Sequence[Found], reference: str) -> None:
    means, halves = [], []
    for one in found:
        assert one.gap
        means.append(100 * one.gap.mean)
        halves.append(100 * one.gap.half)
    places = range(len(found))
    axes.errorbar(means, places, xerr=halves, fmt="o", capsize=3)
    axes.set_yticks(places, [f"{one.recipe}  {number}" for number, one in enumerate(found, 1)])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.axvline(0, color="grey", linewidth=1)
    interval = "" if all(map(math.isnan, halves)) else ", 95% interval"
    axes.set_xlabel(f"gap to {reference}, percentage points{interval}")
    axes.grid(axis="x", alpha=0.3)


def _scatter(axes: Any, found: Sequence[Found], extra: Sequence[float]) -> None:
    points = [(100 * cost, 100 * one.gap.mean) for one, cost in zip(found, extra, strict=True) if one.gap]
    axes.plot(*zip(*points, strict=True), "o")
    for number, point in enumerate(points, 1):
        axes.annotate(str(number), point, xytext=(5, 4), textcoords="offset points")
    axes.plot(0, 0, "k*", markersize=9, label="reference")
    axes.plot(
        *zip(*front([*points, (0.0, 0.0)]), strict=True),
        "k:",
        drawstyle="steps-post",
        linewidth=1,
        label="none is better at this cost",
    )
    axes.axhline(0, color="grey", linewidth=1)
    axes.set_xlabel("multiply-adds more than the reference, %")
    axes.set_ylabel("gap, percentage points")
    axes.grid(alpha=0.3)
    axes.margins(0.12)
    axes.legend(fontsize="small")


def _lines(axes: Any, found: Sequence[Found], groups: Sequence[str], reference: str) -> None:
    for number, recipe in enumerate(dict.fromkeys(one.recipe for one in found)):
        own = [one for one in found if one.recipe == recipe]
        places = [groups.index(one.group) + 0.05 * number for one in own]
        gaps = [one.gap for one in own if one.gap]
        means, halves = [100 * gap.mean for gap in gaps], [100 * gap.half for gap in gaps]
        axes.errorbar(places, means, yerr=halves, marker="o", capsize=3, label=recipe)
    axes.set_xticks(range(len(groups)), groups)
    axes.axhline(0, color="grey", linewidth=1)
    axes.set_ylabel(f"gap to {reference}, percentage points")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
