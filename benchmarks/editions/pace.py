"""How fast two trees train the same runs, at the same time, and how soon they begin, in turn: a ratio within each repeat."""

import contextlib
import json
import math
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.editions.bits import SMALL
from benchmarks.editions.trees import Tree
from benchmarks.engines.timing import spread
from greedypipe.launch.on_host.outcome import NeverAtOnce, Progress, steady_steps_per_s
from greedypipe.launch.on_host.rehearsal import AHEAD_STEPS

NETWORK = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.batch_size=128",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.25",
)
TINY_STEPS = (
    "data.name=digits",
    "data.batch_size=64",
    "data.drop_last=true",
    "model.name=mlp",
    "model.depth=2",
    "model.hidden=32",
    "head.name=linear",
    "partition.blocks=2",
)
DIGITS_STEPS_PER_EPOCH = 22
WARMUP_STEPS, PILOT_STEPS, PILOTS = 4, 20, 5
COMMANDS = {
    "launch/plan.py --help": ("launch/plan.py", "--help"),
    "launch/run.py --print-config": ("launch/run.py", "--print-config"),
}
MOST_GROWTH = 1.02
"""Of the time to start: what a median of few repeats cannot tell from none."""


@dataclass(frozen=True)
class Load:
    """What is trained for its throughput.

    Attributes:
        step_scale: By how much its steps are shorter than usual: warm-up and pilot have as many times more of them.
        target: Of current / earlier, at least.
    """

    name: str
    processes: int
    settings: tuple[str, ...]
    target: float
    step_scale: int = 1

    @property
    def batch_size(self) -> int:
        """Samples of one step."""
        return next(int(one.partition("=")[2]) for one in self.settings if one.startswith("data.batch_size="))

    def length(self, steps: int) -> tuple[str, ...]:
        """Settings for at least so many steps, with a single evaluation, at the end."""
        if "data.name=synthetic" in self.settings:
            return f"data.samples={steps * self.batch_size}", "training.epochs=1"
        epochs = math.ceil(steps / DIGITS_STEPS_PER_EPOCH)
        return f"training.epochs={epochs}", f"evaluation.every_epochs={epochs}"


LOADS = (
    Load("VGG8b, 1 block, 1 process", 1, (*NETWORK, "partition.blocks=1"), 0.99),
    Load("VGG8b, 2 stages, FIFO", 2, (*NETWORK, "partition.blocks=2", "partition.boundaries=[conv3]"), 0.99),
    Load("tiny steps, 2 blocks, 1 process", 1, TINY_STEPS, 0.98, step_scale=25),
    Load("tiny steps, 2 stages, FIFO", 2, TINY_STEPS, 0.98, step_scale=25),
)


@dataclass(frozen=True)
class Figure:
    """One measured quantity of both trees: values by repeat, and their ratio current / earlier within each repeat.

    Attributes:
        target: Of the median ratio: at least where `unit` is samples/s, at most where it is s.
    """

    name: str
    unit: str
    earlier: list[float]
    current: list[float]
    target: float

    @property
    def ratios(self) -> list[float]:
        """Current / earlier, repeat by repeat."""
        return [new / old for old, new in zip(self.earlier, self.current, strict=True)]

    @property
    def holds(self) -> bool:
        """Whether the median ratio meets its target."""
        median = spread(self.ratios)["median"]
        return median >= self.target if self.unit == "samples/s" else median <= self.target

    def as_json(self) -> dict[str, Any]:
        """Everything, with medians and ranges."""
        return {
            "name": self.name,
            "unit": self.unit,
            "n": len(self.ratios),
            "earlier": spread(self.earlier) | {"all": self.earlier},
            "current": spread(self.current) | {"all": self.current},
            "ratio": spread(self.ratios) | {"all": self.ratios},
            "target": self.target,
            "holds": self.holds,
        }


Measure = Callable[[Tree, int], float]
"""One value of a tree, in the repeat of this number."""


def interleaved(trees: tuple[Tree, Tree], repeats: int, measure: Measure) -> tuple[list[float], list[float]]:
    """Measures both trees in turn, the other one first in every second repeat, so that drift favours neither."""
    found: dict[str, list[float]] = {tree.label: [] for tree in trees}
    for number in range(repeats):
        for tree in trees[:: 1 if number % 2 == 0 else -1]:
            found[tree.label].append(measure(tree, number))
    earlier, current = (found[tree.label] for tree in trees)
    return earlier, current


def throughput(trees: tuple[Tree, Tree], load: Load, repeats: int, seconds: float, folder: Path) -> Figure:
    """Steady samples per second of the slowest stage; start-up and what is left over at the end are not counted.

    Both trees train at the same time, on the same cores, and are compared over the time in which both do: whatever slows
    the machine slows both. So each has about half of the speed that it has alone.

    The number of steps is what a pilot suggests for `seconds` seconds, and at least the pilot's own.
    """
    warmup = WARMUP_STEPS * load.step_scale
    least, pilot = _pilot(trees, load, warmup, folder)
    steps = max(least, int(seconds * pilot / 2 / load.batch_size))
    rates = [_rates(trees, load, steps, warmup, folder / str(number)) for number in range(repeats)]
    earlier, current = zip(*rates, strict=True)
    return Figure(load.name, "samples/s", list(earlier), list(current), load.target)


def _pilot(trees: tuple[Tree, Tree], load: Load, warmup: int, folder: Path) -> tuple[int, float]:
    """A number of steps that takes long enough for both trees to train at the same time, and the sum of their rates."""
    steps = PILOT_STEPS * load.step_scale
    for number in range(PILOTS):
        with contextlib.suppress(NeverAtOnce):
            return steps, sum(_rates(trees, load, steps, warmup, folder / f"pilot{number}"))
        steps *= 4
    raise ValueError(f"{load.name}: one tree has trained {steps // 4} steps before the other one began")


def _rates(trees: tuple[Tree, Tree], load: Load, steps: int, warmup: int, folder: Path) -> list[float]:
    """Of both trees, which train at the same time."""
    folder.mkdir()
    whole = warmup + steps + AHEAD_STEPS * (load.processes - 1)
    settings = (*load.settings, *load.length(whole), f"logging.interval_steps={max(2, steps // 16)}")
    # One core for one process each, where there are more: else each tree would have a core of its own.
    cores = range(load.processes)

    def train(tree: Tree) -> list[Progress]:
        tree.train(load.processes, settings, folder / tree.label, cores=cores)
        return [_progress(folder / tree.label, stage) for stage in range(load.processes)]

    with ThreadPoolExecutor(len(trees)) as pool:
        stages = [stage for progress in pool.map(train, trees) for stage in progress]
    rates = steady_steps_per_s(stages, warmup)
    by_tree = rates[: load.processes], rates[load.processes :]
    return [load.batch_size * min(one) for one in by_tree]


def _progress(folder: Path, stage: int) -> Progress:
    """Read without this tree's types of records, which another tree need not share."""
    lines = (folder / "metrics" / f"stage{stage}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for line in lines if "step" in (record := json.loads(line))]
    mine = [one for one in records if one["block"] == records[-1]["block"]]
    return Progress([one["step"] for one in mine], [one["unix_s"] for one in mine])


def command_times(trees: tuple[Tree, Tree], name: str, repeats: int) -> tuple[Figure, Figure]:
    """Seconds of a command of `COMMANDS`, which trains nothing: on the clock, and of the processor, which other work on the
    machine does not change."""
    processor: dict[str, list[float]] = {tree.label: [] for tree in trees}

    def measure(tree: Tree, number: int) -> float:
        began, used = time.perf_counter(), _processor_s()
        tree.call(COMMANDS[name])
        processor[tree.label].append(_processor_s() - used)
        return time.perf_counter() - began

    clock = interleaved(trees, repeats, measure)
    earlier, current = (processor[tree.label] for tree in trees)
    return Figure(name, "s", *clock, MOST_GROWTH), Figure(f"{name}, processor", "s", earlier, current, MOST_GROWTH)


def _processor_s() -> float:
    """Of all children that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def first_batch(trees: tuple[Tree, Tree], repeats: int, folder: Path) -> Figure:
    """Seconds from the start of torchrun to stage 0's record of its first trained batch, of two stages."""
    settings = (*SMALL, "partition.blocks=2", "training.epochs=1", "logging.interval_steps=1")

    def measure(tree: Tree, number: int) -> float:
        run, began = folder / f"{tree.label}{number}", time.time()
        tree.train(2, settings, run)
        return _progress(run, 0).clocks[0] - began

    return Figure("start to the first trained batch, 2 stages", "s", *interleaved(trees, repeats, measure), MOST_GROWTH)
