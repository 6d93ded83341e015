"""The settings that every recipe is tuned by, on seeds and samples of its own: the test part is not read."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.recipe_gaps.question import Overrides, Question, Trial

Row = Mapping[str, Any]
FIRST_SEED = 1000
"""Seeds of tuning are none of those whose accuracy is told."""


def tuning_trials(question: Question) -> Iterator[Trial]:
    """Every recipe with every setting that may be chosen, seed by seed."""
    if question.tuning is None:
        return
    for seed in range(FIRST_SEED, FIRST_SEED + question.tuning.seeds):
        for group, name in question.pairs:
            for choice in question.tuning.choices:
                yield Trial(group, name, seed, (*question.overrides(group, name), *choice, f"training.seed={seed}"))


def chosen(question: Question, rows: Sequence[Row]) -> dict[tuple[str, str], Overrides]:
    """For each group and recipe the setting with the highest mean accuracy of the network's classifier on the validation
    part; of equal ones the first. A setting with which a run failed is out. Nothing where nothing is tuned.

    Args:
        rows: Of all `tuning_trials`.

    Raises:
        ValueError: A recipe ran with none of them; one line.
    """
    if question.tuning is None:
        return {}
    found: dict[tuple[str, str], Overrides] = {}
    for pair in question.pairs:
        means = {choice: _mean(question, pair, choice, rows) for choice in question.tuning.choices}
        best = max(means, key=lambda choice: means[choice])
        if means[best] < 0:
            raise ValueError(f"{' '.join(pair).strip()}: every run of its tuning failed")
        found[pair] = best
    return found


def _mean(question: Question, pair: tuple[str, str], choice: Overrides, rows: Sequence[Row]) -> float:
    """-1 if a run failed."""
    settings = [*question.overrides(*pair), *choice]
    own = [row for row in rows if (row["group"], row["recipe"]) == pair and row["overrides"][:-1] == settings]
    failed = not own or any(row["cause"] for row in own)
    return -1.0 if failed else statistics.mean(row["validation"][-1] for row in own)
