"""Gaps of recipes to the reference, with intervals, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recipe_gaps.question import Question
from benchmarks.recipe_gaps.tables import Found, summarise


def plot_gaps(rows: Sequence[Mapping[str, Any]], question: Question, path: Path) -> None:
    """A line per recipe over the groups, or a row per recipe where there is one group; in percentage points. Does nothing
    where no run can be compared."""
    found = [one for one in summarise(rows, question.reference) if one.gap]
    if not found:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(question.groups)
    rows_shown = len({one.recipe for one in found})
    height = 4.5 if len(groups) > 1 else 1.2 + 0.4 * rows_shown
    figure, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
    if len(groups) > 1:
        _lines(axes, found, groups, question.reference)
    else:
        _bars(axes, found, question.reference)
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
    axes.set_yticks(places, [one.recipe for one in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_xlabel(f"test accuracy less that of {reference}, percentage points; 95% interval")
    axes.grid(axis="x", alpha=0.3)


def _lines(axes: Any, found: Sequence[Found], groups: Sequence[str], reference: str) -> None:
    for number, recipe in enumerate(dict.fromkeys(one.recipe for one in found)):
        own = [one for one in found if one.recipe == recipe]
        places = [groups.index(one.group) + 0.05 * number for one in own]
        gaps = [one.gap for one in own if one.gap]
        means, halves = [100 * gap.mean for gap in gaps], [100 * gap.half for gap in gaps]
        axes.errorbar(places, means, yerr=halves, marker="o", capsize=3, label=recipe)
    axes.set_xticks(range(len(groups)), groups)
    axes.axhline(0, color="grey", linewidth=1)
    axes.set_ylabel(f"test accuracy less that of\n{reference}, percentage points")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
