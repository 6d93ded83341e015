"""Recipes: what is asked of them, what runs say, and what they cost."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipes
from benchmarks.book.results.recipes import absent_sentence, order_sentence
from benchmarks.recipe_gaps.costs import cost_of
from benchmarks.recipe_gaps.plot import front
from benchmarks.recipe_gaps.question import Question, Trial, load_question, question_names
from benchmarks.recipe_gaps.tables import interval, summarise
from benchmarks.recipe_gaps.tuning import chosen, tuning_trials
from benchmarks.recipes import jobs
from greedypipe.launch.config.loader import load_config

RESULTS = Path(recipes.__file__).parent / "results"


def row(recipe: str, seed: int, test: list[float], validation: list[float] | None = None, **more: Any) -> dict[str, Any]:
    found = {"test": test, "validation": validation or test, "train_s": 2.0 + len(test), "at_once": 1}
    return {"group": "", "recipe": recipe, "seed": seed, "cause": "", **found, **more}


def test_the_front_has_what_nothing_cheaper_or_as_cheap_equals() -> None:
    points = [(2.0, 0.9), (1.0, 0.8), (1.0, 0.7), (3.0, 0.9), (4.0, 0.95), (0.5, 0.1)]
    assert front(points) == [(0.5, 0.1), (1.0, 0.8), (2.0, 0.9), (4.0, 0.95)]


def test_an_interval_is_students() -> None:
    one = interval([1.0, 2.0, 3.0])
    assert (one.mean, one.count) == (2.0, 3)
    assert one.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert math.isnan(interval([1.0]).half) and math.isnan(interval([]).mean)


def test_gaps_are_within_a_seed_and_the_best_exit_is_chosen_on_the_validation_part() -> None:
    rows = [
        row("bp", 0, [0.9]),
        row("bp", 1, [0.8]),
        row("local", 0, [0.7, 0.85], [0.9, 0.8]),
        row("local", 1, [0.6, 0.78], [0.5, 0.5]),
        row("local", 2, [0.1, 0.2]),
        row("late", 0, [0.9, 0.9], cause="loss is not finite"),
    ]
    bp, local, late = summarise(rows, "bp")
    assert bp.gap is None and bp.final.mean == pytest.approx(0.85)
    assert local.gap and local.gap.mean == pytest.approx((-0.05 - 0.02) / 2) and local.gap.count == 2
    assert local.best_gap and local.best_gap.mean == pytest.approx((0.7 - 0.9 + 0.78 - 0.8) / 2)
    assert local.exits == pytest.approx((1.4 / 3, 1.83 / 3)) and local.final.count == 3
    assert bp.time is None and local.time == pytest.approx(4 / 3)
    assert summarise([rows[0], {**rows[2], "at_once": 2}], "bp")[1].time is None
    assert late.failed == ("loss is not finite",) and late.gap is None and late.exits == ()


def test_recipes_that_stand_in_another_order_than_published_are_named() -> None:
    rows = [row("bp", 0, [0.9]), row("local", 0, [0.8]), row("late", 0, [0.85])]
    found = summarise([*rows, *({**one, "group": "digits"} for one in rows)], "bp")
    same = order_sentence("", {"bp": 95.0, "late": 94.0, "local": 90.0}, found)
    assert same == "The order of the 3 rows here is the same."
    swapped = order_sentence("digits", {"local": 95.0, "bp": 94.0, "late": 93.0, "absent": 99.0}, found)
    assert swapped == "On digits the order of the 3 rows here is another: bp above local and late above local."
    assert absent_sentence("MNIST", {"bp": 99.25}) == "MNIST, which was not run here: bp 99.25%."


@pytest.mark.parametrize("name", question_names())
def test_every_recipe_is_a_configuration_that_differs_from_all_others(name: str) -> None:
    question = load_question(name)
    pairs = list(question.pairs)
    configs = [load_config(question.config or None, question.overrides(*pair)) for pair in pairs]
    of_group = [[one for one, (its, _) in zip(configs, pairs, strict=True) if its == group] for group in question.groups]
    assert all(one not in group[:number] for group in of_group for number, one in enumerate(group)) and len(pairs) > 2
    trials = list(question.trials({}))
    assert len(trials) == question.seeds * len(pairs)
    assert [trial.seed for trial in trials] == sorted(trial.seed for trial in trials)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"reference": "nothing"}, "reference: got nothing, allowed: one of"),
        ({"settings": []}, "no data.validation"),
        ({"published": {"source": "?", "accuracies": {"": {"DGL": 90}}}}, r"published: got .*'DGL'.*, allowed: groups and"),
    ],
)
def test_a_question_without_an_answer_is_refused(changed: dict[str, Any], problem: str) -> None:
    asked = {"question": "?", "settings": ["data.validation=0.1"], "seeds": 1, "recipes": {"back-propagation": []}}
    assert Question.model_validate(asked)
    with pytest.raises(ValueError, match=problem):
        Question.model_validate({**asked, **changed})


TINY = ("data.name=digits", "data.batch_size=16", "model.name=mlp", "model.depth=4", "model.hidden=16")


def test_multiply_adds_are_those_of_every_product() -> None:
    layers = [64 * 16, 16 * 16, 16 * 16, 16 * 16, 16 * 10]
    # Every product is there three times but for the first, whose input has no gradient.
    assert cost_of("", [*TINY, "partition.blocks=1"]) == {
        "macs": 3 * sum(layers) - layers[0],
        "forward_bytes": 0,
        "back_bytes": 0,
        "age": 0,
    }
    local = cost_of("", [*TINY, "partition.blocks=2", "head.name=linear"])
    # A block's first layer has no input gradient either; the first block has a head as large as the classifier.
    assert local["macs"] == 3 * sum(layers) - layers[0] - layers[2] + 3 * 160
    assert local["forward_bytes"] == 16 * 4


def test_what_comes_back_is_counted_in_the_turns_in_which_it_has_come() -> None:
    late = cost_of("", [*TINY, "partition.blocks=3", "head.name=linear", "method.name=late_chain", "feedback.delay=2"])
    assert late["age"] == 4 and late["back_bytes"] == 2 * 16 * 4
    plain = cost_of("", [*TINY, "partition.blocks=3", "head.name=linear"])
    assert late["macs"] > 1.3 * plain["macs"]


def test_trials_of_equal_configurations_are_run_once() -> None:
    question = load_question("blocks").model_copy(update={"seeds": 2})
    found = jobs(question, question.trials({}), [])
    assert sum(map(len, found)) == 2 * len(list(question.pairs)) == 24
    assert [sorted({trial.recipe for trial in job}) for job in found if len(job) > 1] == [["back-propagation"]] * 2
    first = [{"group": trial.group, "overrides": [*trial.overrides]} for trial in found[0]]
    assert jobs(question, question.trials({}), first) == found[1:]


def test_a_codebook_is_counted_once_per_batch() -> None:
    overrides = [*TINY, "partition.blocks=2", "head.name=linear", "codec.name=vq", "codec.codes=4", "codec.groups=2"]
    # Two numbers for each sample; 2 x 4 vectors of 8 features in fp32 for 16 samples.
    assert cost_of("", overrides)["forward_bytes"] == 2 + 4 * 2 * 4 * 8 / 16


def test_bytes_are_those_that_links_send() -> None:
    overrides = [*TINY, "partition.blocks=2", "head.name=linear"]
    sent = {name: cost_of("", [*overrides, f"link.dtype={name}"])["forward_bytes"] for name in ("same", "bf16", "int8")}
    # 16 features of 4, 2 and 1 bytes; with int8 a scale and an offset in fp32 for each of them and 16 samples.
    assert sent == {"same": 64, "bf16": 32, "int8": 16 + 2 * 4 * 16 / 16}


def test_runs_that_were_asked_for_otherwise_are_other_runs() -> None:
    def asked(smoke: bool, *overrides: str) -> tuple[Question, list[str]]:
        question, where = recipes._asked(
            argparse.Namespace(question="mnist_1d", overrides=[*overrides], seeds=None, groups=None, smoke=smoke)
        )
        return question, [*where]

    plain, short = asked(False, "data.root=/elsewhere"), asked(True)
    assert plain[0] == load_question("mnist_1d") and plain[1] == ["data.root=/elsewhere"]
    known = [{"group": trial.group, "overrides": [*trial.overrides]} for trial in short[0].trials({})]
    trials = list(plain[0].trials({}))
    assert len(known) == 3 and len(jobs(plain[0], trials, known)) == len(jobs(plain[0], trials, []))


@pytest.mark.parametrize("path", sorted(RESULTS.glob("recipes_*.json")), ids=lambda path: path.stem)
def test_what_is_on_record_are_runs_of_the_recipes_as_they_are_now(path: Path) -> None:
    answer = json.loads(path.read_text(encoding="utf-8"))
    question = load_question(answer["question"])
    assert answer["runs"] and not [
        row for row in answer["runs"] if not question.has_asked(row["group"], row["recipe"], row["overrides"])
    ]


def test_runs_of_a_recipe_with_other_settings_count_as_none_of_its_seeds(tmp_path: Path) -> None:
    question = load_question("blocks")
    asked = question.overrides("4 blocks", "conv head")
    assert question.has_asked("4 blocks", "conv head", [*asked, "training.seed=7"])
    for changed in (asked[:-1], [*asked, "optimizer.lr=1"], ["data.name=digits", *asked[1:]]):
        assert not question.has_asked("4 blocks", "conv head", [*changed, "training.seed=7"])
    row = {"group": "4 blocks", "recipe": "conv head", "overrides": [*asked[:-1], "training.seed=0"]}
    (tmp_path / "old.json").write_text(json.dumps({"runs": [row]}))
    with pytest.raises(SystemExit, match=r"old\.json has runs of conv head with other settings; choose another file"):
        recipes.Experiment("blocks", question, tmp_path / "old.json", [], 1, 0)


def test_a_group_that_a_question_has_not_is_named() -> None:
    def asked(*groups: str) -> Question:
        arguments = argparse.Namespace(question="blocks", overrides=[], seeds=None, groups=groups, smoke=False)
        return recipes._asked(arguments)[0]

    assert list(asked("4 blocks").groups) == ["4 blocks"]
    with pytest.raises(SystemExit, match="--groups: got 5 blocks, allowed: 2 blocks, 4 blocks, 7 blocks"):
        asked("4 blocks", "5 blocks")


def test_every_recipe_is_tuned_by_the_same_choices_on_seeds_that_do_not_count() -> None:
    asked = {
        "question": "?",
        "settings": ["data.validation=0.1"],
        "seeds": 2,
        "recipes": {"back-propagation": [], "local": ["partition.blocks=2"]},
        "tuning": {"choices": [["optimizer.lr=0.1"], ["optimizer.lr=0.2"], ["optimizer.lr=0.4"]], "seeds": 2},
    }
    question = Question.model_validate(asked)
    trials = list(tuning_trials(question))
    assert len(trials) == 2 * 2 * 3 and not {trial.seed for trial in trials} & {0, 1}

    def told(accuracy: Callable[[Trial], float], cause: Callable[[Trial], str] = lambda trial: "") -> list[dict[str, Any]]:
        return [
            {"group": "", "recipe": one.recipe, "overrides": [*one.overrides], "cause": cause(one)}
            | ({} if cause(one) else {"validation": [1.0, accuracy(one)]})
            for one in trials
        ]

    rates = {"back-propagation": "0.2", "local": "0.4"}
    rows = told(lambda one: 0.8 + 0.1 * (f"optimizer.lr={rates[one.recipe]}" in one.overrides))
    found = chosen(question, rows)
    assert found == {("", "back-propagation"): ("optimizer.lr=0.2",), ("", "local"): ("optimizer.lr=0.4",)}
    assert [one.overrides[-2] for one in question.trials(found)] == ["optimizer.lr=0.2", "optimizer.lr=0.4"] * 2
    # The highest of all, but it failed with the other seed.
    rows = told(
        lambda one: float(one.overrides[-2][-3:]),
        lambda one: "nan" * one.overrides[-1].endswith("=1001") * ("0.4" in one.overrides[-2]),
    )
    assert set(chosen(question, rows).values()) == {("optimizer.lr=0.2",)}
    with pytest.raises(ValueError, match="back-propagation: every run of its tuning failed"):
        chosen(question, told(lambda one: 1.0, lambda one: "nan"))
    assert chosen(question.model_copy(update={"tuning": None}), []) == {}
