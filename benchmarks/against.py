"""The current tree against an earlier commit: the same bits, the same speed, the same time to start.

    python -m benchmarks.against COMMIT --out benchmarks/results/against [--repeats 7] [--seconds 8]
        [--parts bits throughput start] [--loads 0 1 2 3] [--smoke]

COMMIT is a commit of this repository, which is unpacked into a temporary folder, or the folder of another checkout. Both
trees run as users start them, through torchrun and launch/, under this python; each is found to import its own code first.

Bits: runs of eight configurations are exported by each tree (launch/export.py); the files must have the same bytes. Where
heads have other names, their tensors must. Throughput: steady samples per second of the slowest stage, without start-up;
both trees train at the same time on the same cores. Start: commands that train nothing, in seconds of the clock and of the
processor, and the time from torchrun to the first trained batch; the trees take turns. Figures are medians over the repeats
of the ratio within a repeat. OUT.json grows as they are found, and keeps what it has of the same two commits. The exit code
is 1 where bits differ.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.editions.bits import CONFIGURATIONS, Rounding, Same, compare, held, replicas_within_rounding
from benchmarks.editions.pace import COMMANDS, LOADS, Figure, command_times, first_batch, throughput
from benchmarks.editions.trees import ROOT, Tree, checked_out, describe, tree_at
from benchmarks.engines.timing import spread
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.telemetry.machine import hardware, versions

PARTS = ("bits", "throughput", "start")
Say = Callable[[str], None]


def find_bits(trees: tuple[Tree, Tree], smoke: bool, folder: Path, say: Say) -> tuple[list[Same], Rounding]:
    """What both trees have learned, configuration by configuration; and replicas against none."""
    found = []
    for number, configuration in enumerate(CONFIGURATIONS[1:2] if smoke else CONFIGURATIONS):
        found.append(compare(*trees, configuration, folder / f"bits{number}"))
        say(f"bits: {found[-1].name}: network {found[-1].network}, heads {found[-1].heads}")
    return found, replicas_within_rounding(trees[1], folder / "rounding")


def find_throughput(
    trees: tuple[Tree, Tree], repeats: int, seconds: float, numbers: Sequence[int], folder: Path, say: Say
) -> Iterator[Figure]:
    """Throughput, load by load."""
    for number in numbers:
        load = LOADS[number]
        say(f"throughput: {load.name}")
        (folder / f"load{number}").mkdir()
        yield throughput(trees, load, repeats, seconds, folder / f"load{number}")


def find_start(trees: tuple[Tree, Tree], repeats: int, folder: Path, say: Say) -> Iterator[Figure]:
    """Times to start."""
    say("start")
    (folder / "start").mkdir()
    for name in COMMANDS:
        yield from command_times(trees, name, repeats)
    yield first_batch(trees, repeats, folder / "start")


def bits_table(found: Sequence[Same], rounding: Rounding) -> Table:
    """One line per configuration."""
    shown = Table("configuration", "exported network: the same", "heads: the same", "sha256 of the current network")
    for one in found:
        shown.add_row(one.name, one.network, one.heads, one.sha256["current"][:16])
    verdict = "within rounding" if rounding.holds else "DIFFERS"
    shown.add_row("replicas [1,2,1] against [1,1,1]", f"{verdict}: {rounding.largest_difference:.1e} at most", "", "")
    return shown


def figures_table(found: Sequence[Figure]) -> Table:
    """One line per figure: medians with range."""
    shown = Table("what", "unit", "earlier", "current", "current / earlier", "target", "n")
    for one in found:
        digits, sign = (0, ">=") if one.unit == "samples/s" else (2, "<=")
        cells = [_shown(one.earlier, digits), _shown(one.current, digits), _shown(one.ratios, 3)]
        target = f"{sign} {one.target:g}" + ("" if one.holds else ", missed")
        shown.add_row(one.name, one.unit, *cells, target, str(len(one.ratios)))
    return shown


def _shown(values: Sequence[float], digits: int) -> str:
    found = spread(values)
    return f"{found['median']:,.{digits}f} ({found['min']:,.{digits}f} .. {found['max']:,.{digits}f})"


def main() -> None:
    arguments = _parse()
    try:
        with checked_out(arguments.commit) as (root, commit), tempfile.TemporaryDirectory() as folder:
            trees = tree_at(root, "earlier"), tree_at(ROOT, "current")
            head = {
                "command": "python -m benchmarks.against " + " ".join(sys.argv[1:]),
                "earlier": commit,
                "current": describe(ROOT),
                "at_once": True,
                "hardware": hardware(),
                "versions": versions(),
            }
            right = _measure(arguments, trees, Path(folder), Record(arguments.out.with_suffix(".json"), head))
    except ValueError as error:
        sys.exit(f"greedypipe: {error}")
    sys.exit(0 if right else 1)


class Record:
    """The answer in its file, which grows: what it has of the same two commits stays, but for what is measured again."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path = path
        self._answer: dict[str, Any] = {**head, "figures": []}
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if all(before.get(key) == head[key] for key in ("earlier", "current")):
            self._answer = {**before, **head}

    def add(self, **parts: Any) -> None:
        """Writes further parts."""
        self._answer |= parts
        write_atomically(self._path, json.dumps(self._answer, indent=1) + "\n")

    def add_figure(self, figure: Figure) -> None:
        """Writes a figure, in the place of one of its name."""
        others = [one for one in self._answer["figures"] if one["name"] != figure.name]
        self.add(figures=[*others, figure.as_json()])


def _measure(arguments: argparse.Namespace, trees: tuple[Tree, Tree], folder: Path, record: Record) -> bool:
    """Prints and records the parts that were asked for; returns whether no bit differs."""
    console = Console(width=150)
    repeats, seconds = (1, 0.0) if arguments.smoke else (arguments.repeats, arguments.seconds)
    right = True
    if "bits" in arguments.parts:
        same, rounding = find_bits(trees, arguments.smoke, folder, _say)
        right = held(same, rounding)
        console.print(bits_table(same, rounding))
        record.add(bits=[asdict(one) for one in same], replicas_against_none=asdict(rounding))
    figures: list[Figure] = []
    for part, found in (
        ("throughput", find_throughput(trees, repeats, seconds, [2] if arguments.smoke else arguments.loads, folder, _say)),
        ("start", find_start(trees, repeats, folder, _say)),
    ):
        for figure in found if part in arguments.parts else ():
            record.add_figure(figure)
            figures.append(figure)
    if figures:
        console.print(figures_table(figures))
    return right


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", metavar="COMMIT", help="what to compare with: a commit, or the folder of a checkout")
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8.0, help="about how long each run for its throughput takes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to compare (default: all)")
    loads = range(len(LOADS))
    named = ", ".join(f"{number}: {load.name}" for number, load in enumerate(LOADS))
    parser.add_argument("--loads", type=int, nargs="+", choices=loads, default=loads, help=f"of throughput; {named}")
    parser.add_argument("--smoke", action="store_true", help="one configuration, one load, one repeat")
    return parser.parse_args()


if __name__ == "__main__":
    main()
