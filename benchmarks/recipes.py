"""How far recipes of local learning are from back-propagation, or another reference, on one budget, with intervals.

    python -m benchmarks.recipes QUESTION --out benchmarks/results/QUESTION [section.key=value ...]
        [--groups NAME ...] [--seeds N] [--at-once N] [--seconds S] [--smoke]

QUESTION is a file of benchmarks/questions/, which holds network, data, schedule and recipes; overrides apply to all of them,
such as data.root. Seeds are interleaved: every recipe has run with a seed before any runs with the next one. Each run is one
process, which gives the bits that any number of processes gives, unless the question asks for `processes`; so --at-once runs
may go side by side.

A run trains without the validation part, which chooses its exit; then the test part is read, once. Where the question has
`tuning`, every recipe is tuned first, all by the same choices, on the validation part and on seeds of its own.

OUT.json gets a row as soon as a run has ended, and goes on from the rows that it has; a run that failed is a row that says
why. OUT.png shows the gaps, and what they cost. Multiply-adds and bytes are counted once per recipe; times are shown where
no runs have gone side by side.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.recipe_gaps.costs import cost_of
from benchmarks.recipe_gaps.plot import plot_gaps
from benchmarks.recipe_gaps.question import Question, Trial, load_question, question_names
from benchmarks.recipe_gaps.tables import points, summarise
from benchmarks.recipe_gaps.tuning import chosen, tuning_trials
from greedypipe.launch.api import Run
from greedypipe.launch.config.loader import dump_config, load_config
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.telemetry.machine import hardware, versions

Row = dict[str, Any]
TIMEOUT_S = 3 * 3600.0
SMOKE = ("training.epochs=1",)


def run_trial(question: Question, trial: Trial, where: Sequence[str], at_once: int, reads_test: bool) -> Row:
    """Trains once in processes of its own, and evaluates all exits on the test part in this one. Blocks."""
    row: Row = {"group": trial.group, "recipe": trial.recipe, "seed": trial.seed, "overrides": [*trial.overrides]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        overrides, config = [*trial.overrides, *where], question.config or None
        blocks = load_config(config, overrides).partition.blocks
        outcome = run_pipeline(overrides, min(question.processes, blocks), path, TIMEOUT_S, config=config)
        if any(outcome.exit_codes):
            summary = outcome.summary if (path / "summary.json").exists() else {}
            return row | {"cause": summary.get("cause") or "\n".join(outcome.printed)}
        summary = outcome.summary
        return row | {
            "cause": "",
            "validation": summary["accuracy"]["blocks"],
            **({"test": test_accuracies(Run(path))} if reads_test else {}),
            "train_s": summary["train_s"],
            "at_once": at_once,
            "peak_memory_bytes": max(stage["peak_memory_bytes"] for stage in summary["stages"]),
        }


def jobs(question: Question, trials: Iterable[Trial], known: Sequence[Row]) -> list[list[Trial]]:
    """What is to be run, in order: trials of equal configurations, such as the reference of several groups, together."""
    told = [(row["group"], row["overrides"]) for row in known]
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        if (trial.group, [*trial.overrides]) not in told:
            text = dump_config(load_config(question.config or None, trial.overrides))
            found.setdefault(text, []).append(trial)
    return list(found.values())


def test_accuracies(run: Run) -> list[float]:
    """Of every exit, in [0, 1]."""
    hits, total = 0, 0
    for images, labels in run.test_batches():
        hits = hits + (run.exits(images).argmax(2) == labels).sum(1)
        total += len(labels)
    return [count / total for count in hits.tolist()]  # type: ignore[attr-defined]


def table(rows: Sequence[Row], costs: Sequence[Row], question: Question) -> Table:
    """One line per group and recipe."""
    numbers = ("runs", "test %", "gap", "best exit: gap", "MACs", "time", "bytes forward", "back", "age")
    shown = Table("group", "recipe", *numbers, "failed")
    by_pair = {(cost["group"], cost["recipe"]): cost for cost in costs}
    for found in summarise(rows, question.reference):
        cost, base = by_pair[found.group, found.recipe], by_pair[found.group, question.reference]
        shown.add_row(
            found.group,
            found.recipe,
            str(found.final.count),
            f"{100 * found.final.mean:.2f}",
            points(found.gap),
            points(found.best_gap),
            f"{cost['macs'] / base['macs'] - 1:+.0%}",
            f"x {found.time:.2f}" if found.time else "",
            f"{cost['forward_bytes']:,.0f}",
            f"{cost['back_bytes']:,.0f}",
            str(cost["age"]),
            "; ".join(found.failed),
        )
    return shown


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=question_names())
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json, .png")
    parser.add_argument("--groups", nargs="+", metavar="NAME", help="of the question (default: all)")
    parser.add_argument("--seeds", type=int, help="how many (default: those of the question)")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--seconds", type=float, default=1e9, help="no run begins later; a further call goes on from there")
    parser.add_argument("--smoke", action="store_true", help="one epoch, one seed, the first group, three recipes")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser.parse_intermixed_args()


def _asked(arguments: argparse.Namespace) -> tuple[Question, Sequence[str]]:
    """The question with what was asked on top, and where the data lie, which tells no run from another."""
    question = load_question(arguments.question)
    where = [one for one in arguments.overrides if one.startswith("data.root=")]
    more = [one for one in arguments.overrides if one not in where]
    chosen_groups = arguments.groups or question.groups
    if unknown := [name for name in chosen_groups if name not in question.groups]:
        raise SystemExit(f"--groups: got {', '.join(unknown)}, allowed: {', '.join(question.groups)}")
    groups = {name: question.groups[name] for name in chosen_groups}
    seeds = question.seeds if arguments.seeds is None else arguments.seeds
    if seeds < 1:
        raise SystemExit(f"--seeds: got {seeds}, allowed: 1 or more")
    changed: Row = {"seeds": seeds, "groups": groups}
    if arguments.smoke:
        more += SMOKE
        changed = {
            "seeds": 1,
            "groups": dict(list(groups.items())[:1]),
            "tuning": None,
            "recipes": dict(list(question.recipes.items())[:3]),
        }
    return question.model_copy(update={**changed, "settings": (*question.settings, *more)}), where


class Experiment:
    """Runs what is missing, and writes every row as soon as it is known.

    Args:
        path: Of the JSON file, which may have rows already.
        where: Overrides that say where the data lie.
        deadline: No run begins later, in seconds of `time.monotonic`.
    """

    def __init__(
        self, name: str, question: Question, path: Path, where: Sequence[str], at_once: int, deadline: float
    ) -> None:
        self._name, self._question, self._path = name, question, path
        self._where, self._at_once, self._deadline = where, at_once, deadline
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.runs: list[Row] = known.get("runs", [])
        self._tuning: list[Row] = known.get("tuning", [])
        self._check_known()
        asked = [
            {"group": group, "recipe": recipe, **cost_of(question.config, [*question.overrides(group, recipe), *where])}
            for group, recipe in question.pairs
        ]
        others = [cost for cost in known.get("costs", []) if (cost["group"], cost["recipe"]) not in question.pairs]
        self.costs = [*others, *asked]

    def _check_known(self) -> None:
        """A recipe whose settings have changed is another one: what it gave before must not count as a seed of this."""
        for row in self.runs:
            if not self._question.has_asked(row["group"], row["recipe"], row["overrides"]):
                raise SystemExit(f"--out: {self._path} has runs of {row['recipe']} with other settings; choose another file")

    def run(self) -> None:
        """Tunes, then runs what counts. Blocks."""
        self._run(tuning_trials(self._question), self._tuning, "tuning", reads_test=False)
        if not jobs(self._question, tuning_trials(self._question), self._tuning):
            try:
                best = chosen(self._question, self._tuning)
            except ValueError as error:
                raise SystemExit(str(error)) from None
            self._run(self._question.trials(best), self.runs, "runs", reads_test=True)

    def _run(self, trials: Iterable[Trial], rows: list[Row], title: str, reads_test: bool) -> None:
        def run(same: Sequence[Trial]) -> list[Row]:
            if time.monotonic() >= self._deadline:
                return []
            row = run_trial(self._question, same[0], self._where, self._at_once, reads_test)
            named = ({"group": trial.group, "recipe": trial.recipe, "overrides": [*trial.overrides]} for trial in same)
            return [row | one for one in named]

        todo = jobs(self._question, trials, rows)
        if not todo:
            return
        with ThreadPoolExecutor(self._at_once) as pool:
            for found in track(pool.map(run, todo), title, total=len(todo), console=Console(stderr=True)):
                rows += found
                if found:
                    self._write()

    def _write(self) -> None:
        answer = {"costs": self.costs, **({"tuning": self._tuning} if self._tuning else {}), "runs": self.runs}
        said = {"question": self._name, "hardware": hardware(), "versions": versions(), **answer}
        write_atomically(self._path, json.dumps(said, indent=1) + "\n")


def main() -> None:
    arguments = _arguments()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    question, where = _asked(arguments)
    path, deadline = arguments.out.with_suffix(".json"), time.monotonic() + arguments.seconds
    experiment = Experiment(arguments.question, question, path, where, arguments.at_once, deadline)
    experiment.run()
    Console(width=150).print(table(experiment.runs, experiment.costs, question))
    plot_gaps(experiment.runs, experiment.costs, question, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
