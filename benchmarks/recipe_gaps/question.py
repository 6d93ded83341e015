"""A question about recipes, as a YAML file in benchmarks/questions/ asks it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, Field, model_validator

Overrides = tuple[str, ...]
FOLDER = Path(__file__).parents[1] / "questions"


class Tuning(BaseModel, frozen=True, extra="forbid"):
    """Settings to choose from, for every recipe by itself and all by the same list.

    Attributes:
        choices: Overrides, of which one is chosen.
        seeds: Runs with each, which no accuracy is told of.
    """

    choices: tuple[Overrides, ...] = Field(min_length=2)
    seeds: int = Field(1, ge=1)


class Published(BaseModel, frozen=True, extra="forbid"):
    """What others have measured.

    Attributes:
        source: Where it stands, and in what it differs.
        accuracies: Percent, by group and recipe.
    """

    source: str
    accuracies: Mapping[str, Mapping[str, float]]


class Question(BaseModel, frozen=True, extra="forbid"):
    """Recipes to compare on one budget; each is a way of training the same network on the same data.

    Attributes:
        question: What is asked, one sentence.
        config: Configuration file that all runs begin with; empty: the defaults.
        settings: Overrides of all runs, with a share of the training data in `data.validation`.
        seeds: How many there are: 0, 1 and so on.
        reference: The recipe that gaps are measured against, in the same group and with the same seed.
        processes: That a run may have, up to one for each of its blocks; what links do to activations needs several.
        groups: Overrides by name, where the question is asked several times; every recipe is tried in every group.
        recipes: Overrides by name.
        published: What others have measured with some of the recipes.
        tuning: What every recipe is tuned by, in every group, before any of it counts; None: nothing.
    """

    question: str
    config: str = ""
    settings: Overrides
    seeds: int = Field(ge=1)
    reference: str = "back-propagation"
    processes: int = Field(1, ge=1)
    groups: Mapping[str, Overrides] = {"": ()}
    recipes: Mapping[str, Overrides]
    published: Published | None = None
    tuning: Tuning | None = None

    @model_validator(mode="after")
    def _has_what_it_compares_with(self) -> "Question":
        if self.reference not in self.recipes:
            raise ValueError(f"reference: got {self.reference}, allowed: one of {', '.join(self.recipes)}")
        if not any(one.startswith("data.validation=") for one in self.settings):
            raise ValueError("settings: no data.validation, on which exits are chosen")
        known = self.published.accuracies if self.published else {}
        pairs = {(group, recipe) for group, found in known.items() for recipe in found}
        if unknown := pairs.difference(self.pairs):
            raise ValueError(f"published: got {sorted(unknown)}, allowed: groups and recipes of the question")
        return self

    def trials(self, chosen: Mapping[tuple[str, str], Overrides]) -> Iterator["Trial"]:
        """All runs, seed by seed, with what tuning has chosen for each group and recipe."""
        for seed in range(self.seeds):
            for pair in self.pairs:
                settings = (*self.overrides(*pair), *chosen.get(pair, ()))
                yield Trial(*pair, seed, (*settings, f"training.seed={seed}"))

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """Group and name of every recipe."""
        for group in self.groups:
            yield from ((group, name) for name in self.recipes)

    def has_asked(self, group: str, recipe: str, overrides: Sequence[str]) -> bool:
        """Whether these are a recipe's settings, with any choice of the tuning and any seed; so are any of one that is not
        asked for."""
        if (group, recipe) not in self.pairs:
            return True
        choices = self.tuning.choices if self.tuning else ((),)
        return tuple(overrides[:-1]) in [(*self.overrides(group, recipe), *choice) for choice in choices]

    def overrides(self, group: str, recipe: str) -> Overrides:
        """All settings of a recipe in a group but the seed."""
        return (*self.settings, *self.groups[group], *self.recipes[recipe])


@dataclass(frozen=True)
class Trial:
    """One run."""

    group: str
    recipe: str
    seed: int
    overrides: Overrides


def load_question(name: str) -> Question:
    """The question of a file in benchmarks/questions/, without its suffix."""
    return Question.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def question_names() -> list[str]:
    """Of all files in benchmarks/questions/."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
