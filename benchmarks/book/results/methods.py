"""Accuracy of every method on one budget (benchmarks.methods)."""

import statistics
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.book.markdown import TO, listed, percent, table
from benchmarks.book.result import Answer, Result
from benchmarks.methods import BACK_PROPAGATION, BASELINES, OWN_SETTINGS, more_settings, summarise
from greedypipe.pipeline.methods import METHODS


def final(values: Sequence[float]) -> str:
    """Mean and range of accuracies in [0, 1]; empty where no run has come to its end."""
    if not values:
        return ""
    ends = f" ({100 * min(values):.2f}{TO}{100 * max(values):.2f})" if len(values) > 1 else ""
    return f"{percent(statistics.mean(values), 2)}{ends}"


def accuracy_of(answer: Answer, method: str, head: str = "") -> Sequence[float]:
    """Accuracies of a method's runs, with the first head where none is named."""
    found = (row for row in summarise(answer["runs"]) if row["method"] == method and head in ("", row["head"]))
    return next((row["final"] for row in found), ())


def _rows(answer: Answer) -> Iterable[tuple[str, ...]]:
    has_heads = _has_heads(answer)
    summaries = _summaries(answer)
    (reference,) = [statistics.mean(row["final"]) for row in summaries if row["method"] == BACK_PROPAGATION]
    for row in summaries:
        found, is_reference = row["final"], row["method"] == BACK_PROPAGATION
        # The sum with 0 turns a rounded -0.0 into 0.0.
        gap = f"{round(100 * (statistics.mean(found) - reference), 2) + 0:+.2f}" if found else ""
        name = row["method"] if is_reference else f"[`{row['method']}`](methods.md#{row['method']})"
        more = " ".join(one for one in row["more"] if any(one not in other["more"] for other in summaries))
        name += f"<br>`{more}`" if more else ""
        head = (f"`{row['head']}`" if row["head"] else "",) if has_heads else ()
        heads = ", ".join(percent(one) for one in row["heads"])
        failures = row["runs"] - len(found)
        yield name, *head, final(found) or f"{failures} of {row['runs']} runs failed", "" if is_reference else gap, heads


def _summaries(answer: Answer) -> list[dict[str, Any]]:
    """The baselines in front, then by accuracy."""
    rows = summarise(answer["runs"])
    baselines = [row for row in rows if row["method"] in BASELINES]
    others = [row for row in rows if row["method"] not in BASELINES]
    return baselines + sorted(others, key=lambda row: -statistics.mean(row["final"] or [0.0]))


def heads_of(answer: Answer) -> list[str]:
    """Those that have been tried, in the order in which they come first."""
    return list(dict.fromkeys(row["head"] for row in answer["runs"] if row["head"]))


def _has_heads(answer: Answer) -> bool:
    return len(heads_of(answer)) > 1


def _repeats(answer: Answer) -> str:
    counts = sorted({row["runs"] for row in summarise(answer["runs"])})
    return f"n = {TO.join(map(str, counts))} seed{'s; means and ranges' if counts != [1] else ''}"


def _command(stem: str, answer: Answer) -> str:
    """One for all runs that were asked for with the same settings."""
    asked: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in answer["runs"]:
        asked.setdefault(tuple(more_settings(row)), []).append(row)
    return "\n".join(_command_of(stem, answer["config"], settings, rows) for settings, rows in asked.items())


def _command_of(stem: str, config: str, settings: Iterable[str], rows: Sequence[dict[str, Any]]) -> str:
    methods, heads = ({row[key]: None for row in rows if row["head"]} for key in ("method", "head"))
    seeds = sorted({row["seed"] for row in rows})
    some = "" if set(methods) == set(METHODS) else f"--methods {' '.join(methods)} "
    alone = "" if any(row["method"] == BACK_PROPAGATION for row in rows) else "--alone "
    shown = "".join(f"{one} {'data.root=FOLDER ' if one == 'data.name=image_folder' else ''}" for one in settings)
    return (
        f"python -m benchmarks.methods {shown}--config {config} --out benchmarks/results/{stem}.json \\\n"
        f"    {alone}{some}--heads {' '.join(heads)} --seeds {' '.join(map(str, seeds))}"
    )


def _own_settings(answer: Answer) -> str:
    """The sentence about them; groups methods with the same ones."""
    present = {row["method"] for row in answer["runs"]}
    methods_of: dict[str, list[str]] = {}
    for method, settings in OWN_SETTINGS.items():
        if method in present:
            methods_of.setdefault(f"`{' '.join(settings)}`", []).append(f"`{method}`")
    found = "; ".join(f"{settings} for {listed(methods)}" for settings, methods in methods_of.items())
    return f"Fixed beforehand were {found}. " if found else ""


def _text(answer: Answer) -> str:
    header = ["`method.name`", "accuracy of the classifier", "against back-propagation", "heads of the blocks before"]
    if _has_heads(answer):
        header.insert(1, "`head.name`")
    shared = ["`feedback.delay=1`", *([] if _has_heads(answer) else [f"`head.name={heads_of(answer)[0]}`"])]
    return f"""
Each row has the network, cut, data, schedule and {len(answer["runs"][0]["curve"])} epochs of `{answer["config"]}`, and
{listed(shared)}. Nothing was tuned for a method, and no setting was chosen by its result.
{_own_settings(answer)}A method that ends low here may do better with settings of its own.

{table(header, [*_rows(answer)])}

So few seeds do not resolve small differences. The heads of methods that train layers through something else are probes:
with another head `ddg`, `fdg` and `features_replay` have the same bits.
"""


def _result(stem: str, title: str) -> Result:
    return Result(stem, title, _repeats, _text, command=partial(_command, stem))


DIGITS = _result("methods_digits", "Every method on digits")
CIFAR10 = _result("methods_cifar10", "Heads and methods on CIFAR-10")
