"""Accuracy of every method on one budget: the same network, cut, data, epochs, optimizer and schedule.

    python -m benchmarks.methods [section.key=value ...] --out benchmarks/results/methods_digits.json
        [--config FILE] [--methods NAME ...] [--heads NAME ...] [--alone] [--seeds 0 1 2] [--at-once N]
        [--smoke]

Every method runs with `feedback.delay` 1, next to decoupled greedy learning (cross_entropy) and back-propagation (one
block), unless it is to run --alone. Nothing was chosen by looking at a result: a method differs from the configuration by
the fixed settings of `OWN_SETTINGS` alone, which its paper or its card asks for.

Each run is one process, which gives the bits that any number of processes gives, so --at-once runs may go side by side.
Seeds are interleaved. OUT.json gets a row per run as soon as it has ended, and runs that it has already are not repeated;
a run that failed is a row that says why. Accuracy is that of every block's head on the held-out part at the end.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.pipeline.heads import HEADS
from greedypipe.pipeline.methods import METHODS
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.telemetry.machine import hardware, versions

Row = dict[str, Any]

BACK_PROPAGATION = "back-propagation"
BASELINES = (BACK_PROPAGATION, "cross_entropy")
AUXILIARY_ADAM = ("auxiliary.name=adam", "auxiliary.lr=0.001", "auxiliary.weight_decay=0")
OWN_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "dni": AUXILIARY_ADAM,
    "cdni": AUXILIARY_ADAM,
    "local_critic": AUXILIARY_ADAM,
    # Targets of networks with ReLU bear only small steps.
    "dtp": (*AUXILIARY_ADAM, "optimizer.lr=0.002"),
    # Its scalar diverges at the rates of the layers.
    "man_pp": ("optimizer.lr=0.01",),
    "simclr": ("data.views=2", "data.augment=resized_crop"),
    "rotation": ("data.pretext=rotation",),
    "colourisation": ("data.pretext=grey",),
    "inpainting": ("data.pretext=mask",),
}
UNFIT = ("trgl", "trgl_uzawa", "greedy_infomax", "colourisation")
"""Methods that need shortcuts, patches or colours, which not every configuration has."""
PLAIN = [name for name in METHODS if name not in UNFIT]
TIMEOUT_S = 3 * 3600.0
SMALL = ("training.epochs=1", "model.width=0.05")


@dataclass(frozen=True)
class Case:
    """One way of training the network; back-propagation has one block, and so neither method nor head."""

    method: str
    head: str = ""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings of this case alone."""
        if self.method == BACK_PROPAGATION:
            return ("partition.blocks=1", "partition.boundaries=[]")
        head = () if METHODS[self.method].own_head else (f"head.name={self.head}",)
        return (f"method.name={self.method}", *head, *OWN_SETTINGS.get(self.method, ()))


def all_cases(methods: Iterable[str], heads: Sequence[str]) -> Iterator[Case]:
    """Methods, with every head; back-propagation has none."""
    for method in dict.fromkeys(methods):
        yield from (Case(method, head) for head in (heads if method != BACK_PROPAGATION else [""]))


def run_case(case: Case, config: str, settings: Sequence[str], seed: int) -> Row:
    """Trains once, in one process of its own, and returns what became of it. Blocks."""
    row: Row = {"method": case.method, "head": case.head, "seed": seed, "settings": _settings(case, settings, seed)}
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(
            [*settings, *case.overrides, f"training.seed={seed}"], 1, Path(folder) / "run", TIMEOUT_S, config=config
        )
        summary = outcome.summary if (Path(folder) / "run" / "summary.json").exists() else {}
    if any(outcome.exit_codes):
        return row | {"accuracy": None, "cause": summary.get("cause") or "\n".join(outcome.printed)}
    curve = [evaluation["blocks"][-1] for evaluation in summary["evaluations"]]
    return row | {"accuracy": summary["accuracy"], "curve": curve, "train_s": summary["train_s"], "cause": ""}


def _settings(case: Case, settings: Sequence[str], seed: int) -> list[str]:
    """What tells one run from another: everything but where the data lie."""
    return [one for one in (*settings, *case.overrides, f"training.seed={seed}") if not one.startswith("data.root=")]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """A row per method, head and further settings, in the order in which they come first: accuracies of the runs that did
    not fail."""
    cases: dict[tuple[str, str, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        cases.setdefault((row["method"], row["head"], tuple(more_settings(row))), []).append(row)
    answer = []
    for (method, head, more), own in cases.items():
        found = [row["accuracy"] for row in own if row["accuracy"]]
        answer.append(
            {
                "method": method,
                "head": head,
                "runs": len(own),
                "more": list(more),
                "final": [one["final"] for one in found],
                "heads": [statistics.mean(each) for each in zip(*(one["blocks"][:-1] for one in found), strict=True)],
                "causes": sorted({row["cause"] for row in own if row["cause"]}),
            }
        )
    return answer


def more_settings(row: Row) -> Iterator[str]:
    """What was asked for besides the case and the seed."""
    own = Case(row["method"], row["head"]).overrides
    yield from (one for one in row["settings"] if one not in own and not one.startswith("training.seed="))


def table(rows: Sequence[Row]) -> Table:
    """One line per method and head: mean and range of the classifier, means of the heads before it."""
    shown = Table("method", "head", "runs", "accuracy %", "range", "heads of the blocks before %", "failed")
    for row in summarise(rows):
        finals = [100 * one for one in row["final"]]
        middle = f"{statistics.mean(finals):.2f}" if finals else ""
        ends = f"{min(finals):.2f} .. {max(finals):.2f}" if finals else ""
        heads = " ".join(f"{100 * one:.1f}" for one in row["heads"])
        shown.add_row(row["method"], row["head"], str(row["runs"]), middle, ends, heads, "; ".join(row["causes"]))
    return shown


def _known(path: Path, config: str) -> list[Row]:
    """The runs of a file that has some.

    Raises:
        SystemExit: They are of another configuration.
    """
    if not path.exists():
        return []
    answer = json.loads(path.read_text(encoding="utf-8"))
    if answer["config"] != config:
        raise SystemExit(f"--out: {path} has runs of {answer['config']}; choose another file")
    runs: list[Row] = answer["runs"]
    return runs


def _write(path: Path, config: str, rows: Sequence[Row]) -> None:
    answer = {"config": config, "hardware": hardware(), "versions": versions(), "runs": list(rows)}
    write_atomically(path, json.dumps(answer, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.yaml")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=PLAIN, help=f"default: all but {', '.join(UNFIT)}")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=["mlp_sr"])
    parser.add_argument("--alone", action="store_true", help="without the baselines")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--seconds", type=float, default=1e9, help="no run begins later; a further call goes on from there")
    parser.add_argument("--smoke", action="store_true", help="one epoch of digits, a small network, two methods, one seed")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = _arguments()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    settings, methods, seeds = arguments.overrides, arguments.methods, arguments.seeds
    if arguments.smoke:
        settings, methods, seeds = [*settings, *SMALL], ["late_chain"], [0]
    methods = [*(() if arguments.alone else BASELINES), *methods]
    rows = _known(arguments.out, arguments.config)
    jobs = [(case, seed) for seed in seeds for case in all_cases(methods, arguments.heads)]
    known = [row["settings"] for row in rows]
    todo = [(case, seed) for case, seed in jobs if _settings(case, settings, seed) not in known]
    deadline = time.monotonic() + arguments.seconds

    def run(job: tuple[Case, int]) -> Row | None:
        return run_case(job[0], arguments.config, settings, job[1]) if time.monotonic() < deadline else None

    with ThreadPoolExecutor(arguments.at_once) as pool:
        for row in track(pool.map(run, todo), "runs", total=len(todo), console=Console(stderr=True)):
            if row:
                rows.append(row)
                _write(arguments.out, arguments.config, rows)
    Console(width=150).print(table(rows))


if __name__ == "__main__":
    main()
