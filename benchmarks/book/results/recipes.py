"""Gaps of recipes to back-propagation (benchmarks.recipes)."""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from benchmarks.book.markdown import TO, listed, percent, table
from benchmarks.book.result import Answer, Result
from benchmarks.recipe_gaps.question import Question, Tuning, load_question
from benchmarks.recipe_gaps.tables import CONFIDENCE, Found, points, summarise
from benchmarks.recipe_gaps.tuning import chosen


def _question(answer: Answer) -> Question:
    return load_question(answer["question"])


def found(answer: Answer) -> Sequence[Found]:
    """Every recipe in every group."""
    return summarise(answer["runs"], _question(answer).reference)


def _cost(answer: Answer, one: Found, key: str) -> float:
    return next(cost[key] for cost in answer["costs"] if (cost["group"], cost["recipe"]) == (one.group, one.recipe))


def _rows(answer: Answer, all_found: Sequence[Found]) -> list[list[str]]:
    question = _question(answer)
    base = {one.group: _cost(answer, one, "macs") for one in all_found if one.recipe == question.reference}
    timed, rows = _is_timed(all_found), []
    tuned = chosen(question, answer.get("tuning", []))
    for one in all_found:
        own_settings = question.recipes[one.recipe] if one.recipe != question.reference else ()
        settings = " ".join((*own_settings, *tuned.get((one.group, one.recipe), ())))
        back, age = _cost(answer, one, "back_bytes"), _cost(answer, one, "age")
        own = [
            f"{one.recipe}<br>`{settings}`" if settings else one.recipe,
            percent(one.final.mean, 2),
            *([_published_accuracy(question, one)] if question.published else []),
            points(one.gap),
            points(one.best_gap),
            f"{_cost(answer, one, 'macs') / base[one.group] - 1:+.0%}" if one.gap else "",
            *([f"{one.time:.2f}" if one.time else ""] if timed else []),
            f"{_cost(answer, one, 'forward_bytes'):,.0f}",
            f"{back:,.0f}, {age:.0f} late" if back else "",
        ]
        rows.append([one.group, *own] if len(question.groups) > 1 else own)
    return rows


def _is_timed(all_found: Sequence[Found]) -> bool:
    return any(one.time for one in all_found)


def _text(answer: Answer, remark: str) -> str:
    question, all_found = _question(answer), found(answer)
    header = ["recipe", "accuracy", "gap", "gap of the best exit", "multiply-adds", "bytes forward", "bytes back"]
    if question.published:
        header.insert(2, "published")
    if _is_timed(all_found):
        header.insert(header.index("bytes forward"), "time")
    if len(question.groups) > 1:
        header.insert(0, "group")
    failed = sum(len(one.failed) for one in all_found)
    timed = "; time is that of training, likewise, median over the seeds" if _is_timed(all_found) else ""
    missing = f" {failed} runs failed." if failed else ""
    tuned = f" {_tuning(question.tuning)}" if question.tuning else ""
    return f"""
{question.question} Each row has the data, network, schedule and budget of
`benchmarks/questions/{answer["question"]}.yaml`; only the settings under its name differ.
{remark}{tuned}

{table(header, _rows(answer, all_found))}

Accuracies are those of the test part, read once per run; gaps are to {question.reference} with the same seed, in percentage
points, with the {percent(CONFIDENCE, 0)} interval of their mean by Student's t where there are several seeds. The best exit
is chosen on validation samples that no run trains on. Multiply-adds are those of a training step against
those of {question.reference}, counted with torch's formulas{timed}; bytes are those of all cuts, per sample of a
batch, and those back at most: `method.rows` sends fewer.{missing}

{_published(question, all_found)}
"""


def _published_accuracy(question: Question, one: Found) -> str:
    assert question.published is not None
    found = question.published.accuracies.get(one.group, {}).get(one.recipe)
    return "" if found is None else f"{found:.2f}%"


def _published(question: Question, all_found: Sequence[Found]) -> str:
    """Where the figures of others come from, and which recipes stand in another order here."""
    if not question.published:
        return ""
    asked = {one.group for one in all_found}
    known = question.published.accuracies
    orders = [order_sentence(group, found, all_found) for group, found in known.items() if group in asked]
    absent = [absent_sentence(group, found) for group, found in known.items() if group not in asked]
    return " ".join([f"Published: {question.published.source}.", *orders, *absent])


def order_sentence(group: str, published: Mapping[str, float], all_found: Sequence[Found]) -> str:
    """Which of the recipes that stand there have changed places, whether or not the seeds resolve it."""
    here = {one.recipe: one.final.mean for one in all_found if one.group == group}
    ranked = sorted((name for name in published if name in here), key=lambda name: -published[name])
    swapped = [f"{low} above {high}" for high, low in combinations(ranked, 2) if here[low] > here[high]]
    where, count = f"On {group} the" if group else "The", len(ranked)
    return f"{where} order of the {count} rows here is {'another: ' + listed(swapped) if swapped else 'the same'}."


def absent_sentence(group: str, published: Mapping[str, float]) -> str:
    """What was published about a group that has not been run."""
    return f"{group}, which was not run here: {listed([f'{name} {value:.2f}%' for name, value in published.items()])}."


def _tuning(tuning: Tuning) -> str:
    choices = ", ".join(f"`{' '.join(choice)}`" for choice in tuning.choices)
    runs = f"{tuning.seeds} run{'s' if tuning.seeds > 1 else ''}"
    return f"Each recipe has the best of {choices}, by the validation accuracy of {runs} with each that do not count here."


def _repeats(answer: Answer) -> str:
    counts = sorted({one.final.count for one in found(answer)})
    return f"n = {TO.join(map(str, counts))} seed{'' if counts == [1] else 's'}"


def _command(answer: Answer) -> str:
    name, question = answer["question"], _question(answer)
    folder = " data.root=FOLDER" if "data.name=image_folder" in question.settings else ""
    seeds, groups = 1 + max(row["seed"] for row in answer["runs"]), dict.fromkeys(row["group"] for row in answer["runs"])
    some = f" \\\n    --groups {shlex.join(groups)}" if len(groups) < len(question.groups) else ""
    return f"python -m benchmarks.recipes {name} --seeds {seeds} --out benchmarks/results/recipes_{name}{folder}{some}"


def _result(question: str, title: str, remark: str, **more: Any) -> Result:
    return Result(
        f"recipes_{question}", title, _repeats, partial(_text, remark=remark), command=_command, shows_plot=True, **more
    )


MNIST_1D = _result(
    "mnist_1d", "What closes the gap: MNIST-1D", "Signals of 40 numbers, six convolutions; nothing was tuned for a recipe."
)
EIGHT_BLOCKS = _result("eight_blocks", "What closes the gap: eight blocks", "Nothing was tuned for a recipe.")
BASIC_CNN = _result(
    "basic_cnn",
    "The thesis' comparison with synthetic gradients",
    "",
)
THESIS = _result(
    "thesis", "The thesis' losses that rebuild the image", "One seed: differences of less than a point mean nothing."
)
PREDSIM = _result("predsim_mlp", "Losses that compare samples, on a perceptron", "")
HEADS = _result(
    "heads", "Heads: accuracy, multiply-adds and time", "Small networks: their times say little about large ones."
)
VQ_CIFAR10 = _result("vq_cifar10", "Vector-quantised outputs on CIFAR-10", "Two epochs and one seed.")
VQ = _result(
    "vq",
    "What vector-quantised outputs save and cost",
    "Every message bears its codebook, which is most of it where maps are as small as here: on the cuts of "
    "`configs/cifar10_vgg8b_small.yaml` 256 codes take a sixtieth of the bytes of fp32, where int8 takes a quarter.",
)
