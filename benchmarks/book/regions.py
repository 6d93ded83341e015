"""What stands in the marked regions of pages that are otherwise written by hand."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.book import gpus
from benchmarks.book.markdown import TO, listed, machine, percent, spread, table, versions
from benchmarks.book.results import RESULTS, accuracy, faults, methods, predictions
from benchmarks.book.results.first_run import FIRST_RUN, printed
from benchmarks.book.results.reuse import REUSE, cost_of_no_limit
from benchmarks.methods import BACK_PROPAGATION
from greedypipe.pipeline.methods import METHODS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _headlines() -> str:
    rows = []
    for result in RESULTS:
        if result.headline:
            question, found = result.headline(result.read())
            rows.append((f"[{question}](docs/results.md#{result.anchor})", found))
    return table(("question", "measured"), rows)


def _headline_machines() -> str:
    return " and ".join(sorted({machine(result.read()) for result in RESULTS if result.headline}))


def _first_run_conditions() -> str:
    answer = FIRST_RUN.read()
    return f"{machine(answer)}, {versions(answer)}"


def _own_accuracy() -> str:
    cifar10 = accuracy.CIFAR10.read()["runs"]
    finals = {case: next(iter(cifar10[case].values()))["accuracy"]["final"] for case in ("bp", "fifo")}
    found = f"{percent(finals['fifo'], 2)} on CIFAR-10, back-propagation {percent(finals['bp'], 2)}"
    return f"{found} ([conditions](results.md#{accuracy.CIFAR10.anchor}))"


def _own_accuracies(method: str) -> str:
    answer = methods.DIGITS.read()
    found, reference = (methods.accuracy_of(answer, name) for name in (method, BACK_PROPAGATION))
    ours = f"{methods.final(found)} on digits" if found else "all runs failed on digits"
    digits = f"{ours}, back-propagation {methods.final(reference)} ([conditions](results.md#{methods.DIGITS.anchor}))"
    return "; ".join([digits, *_on_cifar10(method)])


def _on_cifar10(method: str) -> Iterator[str]:
    """Nothing where it has not been measured there, or where every run failed."""
    answer = methods.CIFAR10.read()
    (reference,) = methods.accuracy_of(answer, BACK_PROPAGATION)
    found = {head: methods.accuracy_of(answer, method, head) for head in methods.heads_of(answer)}
    ours = listed([f"{methods.final(values)} with `{head}` heads" for head, values in found.items() if values])
    if ours:
        there = f"back-propagation {percent(reference, 2)} ([conditions](results.md#{methods.CIFAR10.anchor}))"
        yield f"{ours} on CIFAR-10, {there}"


def _on_record() -> set[str]:
    """The methods that have been measured on digits."""
    return {row["method"] for row in methods.DIGITS.read()["runs"]}


def _isolation() -> str:
    trials = [one for one in faults.CAMPAIGN.read()["trials"] if one["trial"]["recovery"] == "isolate"]
    again = statistics.median(one["again_s"] for one in trials if one["again_s"] is not None)
    return f"{again:.2f} s ([campaign](results.md#{faults.CAMPAIGN.anchor}))"


def _checkpoint_cost() -> str:
    ratio = faults.CHECKPOINTS.read()["ratio"]
    return f"{spread(ratio, '.3f')} ([conditions](results.md#{faults.CHECKPOINTS.anchor}))"


def _planner() -> str:
    found = predictions.PLANNER.read()["predicted_over_measured"]["rehearsed"]
    return f"{spread(found, '.2f')} ([conditions](results.md#{predictions.PLANNER.anchor}))"


def _no_limit() -> str:
    least, most = cost_of_no_limit(REUSE.read())
    return f"{100 * least:.1f}{TO}{100 * most:.1f} points ([conditions](results.md#{REUSE.anchor}))"


def _example(name: str) -> str:
    return f"```python\n{(EXAMPLES / name / f'{name}.py').read_text(encoding='utf-8')}```"


REGIONS: Mapping[str, Callable[[], str]] = {
    "results": _headlines,
    "results machine": _headline_machines,
    "first run": lambda: printed(FIRST_RUN.read()),
    "first run machine": _first_run_conditions,
    "accuracy of cross_entropy": _own_accuracy,
    **{f"accuracies of {name}": partial(_own_accuracies, name) for name in METHODS if name in _on_record()},
    "isolated restart": _isolation,
    "checkpoint cost": _checkpoint_cost,
    "predicted over measured": _planner,
    "unlimited reuse": _no_limit,
    "gpu paths": gpus.paths_table,
    "gpu figures": gpus.figures,
    "gpu paths in short": gpus.in_short,
    **{path.name: partial(_example, path.name) for path in sorted(EXAMPLES.glob("own_*"))},
}
"""By the name in `<!-- book: NAME -->`."""
