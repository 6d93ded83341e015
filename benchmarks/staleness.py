"""What staleness costs in accuracy (Belilovsky et al., ICML 2020, Figures 5 and 6): DGL's buffer experiments, repeated.

    python -m benchmarks.staleness [section.key=value ...] --out benchmarks/results/staleness [--config FILE]
        [--seeds 0 1 2] [--factors S ...] [--capacities M ...] [--at-capacity M] [--smoke]

All blocks live in one process, and the next one to take its turn is drawn at random: every block with the same weight, but
one of them, the slow one, with 1 / S. Between two blocks stands a replay buffer of M batches. Two sweeps: S = 1 to 2 at M =
50 or --at-capacity (Figure 5), and M at S = 1.2 (Figure 6); each block in turn is the slow one. Every block takes the same
number of steps. Back-propagation and synchronous DGL, with the same network, data, steps, optimizer and schedule, are the
reference.

Results follow from seed and settings alone, not from the machine's speed. Accuracy is that of the network's own classifier
on the held-out part at the end; staleness, reuse and the share of batches that nobody read are of the buffers next to the
slow block. Figures are medians over seeds and slow blocks, with the range. Runs that OUT.json has already, of the same
settings and versions, are not repeated. The experiment with clocks and processes is benchmarks.slowdown.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.engines.timing import spread
from greedypipe.buffers.replay import Policy, ReplayBuffer
from greedypipe.buffers.stats import BufferStats
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.reference import evaluate
from greedypipe.pipeline.staleness import Handover, lockstep, random_order, simulate
from greedypipe.workers.data.source import BatchSource, LoadedBatch
from greedypipe.workers.telemetry.machine import hardware, versions

FACTORS = (1.0, 1.2, 1.5, 2.0)
CAPACITIES = (1, 2, 5, 10, 30, 50)
USUAL_CAPACITY, USUAL_FACTOR = 50, 1.2
"""The one stays while the other is swept."""
DEFAULTS = (
    "data.name=digits",
    "data.batch_size=64",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.1",
    "partition.blocks=4",
    "head.name=mlp_aux",
    "optimizer.lr=0.05",
    "optimizer.schedule=cosine",
    "training.epochs=15",
)
COLUMNS = {"accuracy": (100, 1), "ensemble": (100, 1), "staleness_mean": (1, 2), "reuse_mean": (1, 2), "unread": (100, 1)}
"""Of the table, with factor and digits."""
SMALL = ("model.width=0.05", "partition.blocks=2", "training.epochs=2")


@dataclass(frozen=True)
class Case:
    """One way of ordering the turns.

    Attributes:
        order: synchronous (lockstep), random, or back-propagation, which has one block and so one order.
        slow_block: Drawn `factor` times less often than the others; -1: none.
        capacity: Batches that each buffer holds.
    """

    order: str
    slow_block: int = -1
    factor: float = 1.0
    capacity: int = 1

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings of this case alone."""
        one_block = ("partition.blocks=1", "partition.boundaries=[]") if self.order == "back-propagation" else ()
        return (*one_block, "buffers.policy=replay", "buffers.max_reuse=0", f"buffers.capacity={self.capacity}")

    def turns(self, num_blocks: int, seed: int) -> Iterator[int]:
        """Endless block indices."""
        if self.order != "random":
            return lockstep(num_blocks)
        return random_order([1 / self.factor if block == self.slow_block else 1.0 for block in range(num_blocks)], seed)


REFERENCES = (Case("back-propagation"), Case("synchronous"))


@dataclass(frozen=True)
class Result:
    """What one run of a case gave; the buffers' figures are of those next to the slow block, or of all."""

    case: Case
    seed: int
    accuracy: float
    block_accuracies: list[float]
    ensemble: float
    staleness_mean: float
    reuse_mean: float
    unread: float
    """Share of the batches put into a buffer that were replaced before anybody had read them."""


def all_cases(
    num_blocks: int, factors: Iterable[float], capacities: Iterable[int], at_capacity: int = USUAL_CAPACITY
) -> list[Case]:
    """The reference rows and both sweeps, each block in turn the slow one.

    Args:
        at_capacity: Batches that each buffer holds while the factor is swept.
    """
    by_factor = [(factor, at_capacity) for factor in factors]
    by_capacity = [(USUAL_FACTOR, capacity) for capacity in capacities]
    swept = [
        Case("random", slow_block, factor, capacity)
        for factor, capacity in (*by_factor, *by_capacity)
        for slow_block in (range(num_blocks) if factor > 1 else (-1,))
    ]
    return list(dict.fromkeys((*REFERENCES, *swept)))


def run_case(case: Case, config: str | None, settings: Sequence[str], seed: int) -> Result:
    """Trains all blocks in this process. Blocks.

    Raises:
        ConfigError: The settings are impossible.
    """
    chosen = load_config(config, [*settings, *case.overrides, f"training.seed={seed}"])
    plan = make_plan(chosen, 1)
    torch.set_num_threads(chosen.placement.threads)
    device = plan.placement.device_of(0, chosen.placement)
    blocks = [plan.blueprint.build_block(index, device) for index in range(plan.blueprint.num_blocks)]
    policy = Policy.from_config(chosen.buffers, seed)
    stores = [ReplayBuffer[Handover](chosen.buffers.capacity, policy) for _ in blocks[1:]]
    with BatchSource(chosen.data, seed) as source:
        simulate(blocks, _pairs(source.training_batches(), device), stores, case.turns(len(blocks), seed))
        accuracies, ensemble = evaluate(blocks, _pairs(source.test_batches(), device))
    near = [store.stats() for edge, store in enumerate(stores) if case.slow_block in (-1, edge, edge + 1)]
    return Result(case, seed, accuracies[-1], accuracies, ensemble, *_buffer_figures(near))


def _pairs(batches: Iterable[LoadedBatch], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    return ((batch.images.to(device), batch.labels.to(device)) for batch in batches)


def _buffer_figures(stats: Sequence[BufferStats]) -> tuple[float, float, float]:
    """Staleness, reuse and the share that nobody read."""
    reads, distinct = sum(one.reads for one in stats), sum(one.distinct_reads for one in stats)
    staleness = sum(one.staleness_sum for one in stats) / max(reads, 1)
    unread = sum(one.dropped for one in stats) / max(sum(one.inserted for one in stats), 1)
    return staleness, reads / max(distinct, 1), unread


def summarise(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row per order, S and M, over seeds and slow blocks."""
    groups: dict[tuple[str, float, int], list[Result]] = {}
    for one in results:
        groups.setdefault((one.case.order, one.case.factor, one.case.capacity), []).append(one)
    return [
        {"order": order, "factor": factor, "capacity": capacity, "runs": len(group)}
        | {key: spread([getattr(one, key) for one in group]) for key in COLUMNS}
        | {"accuracy_by_slow_block": _by_slow_block(group)}
        for (order, factor, capacity), group in groups.items()
    ]


def _by_slow_block(group: Sequence[Result]) -> dict[int, dict[str, float]]:
    blocks = sorted({one.case.slow_block for one in group})
    return {block: spread([one.accuracy for one in group if one.case.slow_block == block]) for block in blocks}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per row."""
    shown = Table("turns", "S", "M", "runs", "accuracy %", "ensemble %", "staleness", "reuse", "never read %")
    for row in rows:
        is_random = row["order"] == "random"
        swept = [f"{row['factor']:g}", str(row["capacity"])] if is_random else ["", ""]
        figures = [_shown(row[key], *form) for key, form in COLUMNS.items()]
        shown.add_row(row["order"], *swept, str(row["runs"]), *(figures if is_random else figures[:2]))
    return shown


def _shown(values: dict[str, float], scale: float, digits: int) -> str:
    median, low, high = (f"{scale * values[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low} .. {high})"


def plot(rows: Sequence[dict[str, Any]], path: Path, at_capacity: int) -> None:
    """Accuracy over S and over M, a line per slow block, and the reference rows as levels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    swept = [row for row in rows if row["order"] == "random"]
    by_factor = sorted((row for row in swept if row["capacity"] == at_capacity), key=lambda row: row["factor"])
    by_capacity = sorted((row for row in swept if row["factor"] == USUAL_FACTOR), key=lambda row: row["capacity"])
    panels[1].set_xscale("log")
    for axes, chosen, key in ((panels[0], by_factor, "factor"), (panels[1], by_capacity, "capacity")):
        if not chosen:
            continue
        blocks = sorted({block for row in chosen for block in row["accuracy_by_slow_block"] if block >= 0})
        for block in blocks:
            found = [(row[key], row["accuracy_by_slow_block"].get(block, row["accuracy"])) for row in chosen]
            x, values = [place for place, _ in found], [value for _, value in found]
            axes.plot(x, [100 * one["median"] for one in values], f"C{block}o-", label=f"block {block} slow")
            low, high = ([100 * one[end] for one in values] for end in ("min", "max"))
            axes.fill_between(x, low, high, color=f"C{block}", alpha=0.12)
        for style, row in zip(("k--", "k:"), (row for row in rows if row["order"] != "random"), strict=False):
            axes.plot([chosen[0][key], chosen[-1][key]], [100 * row["accuracy"]["median"]] * 2, style, label=row["order"])
        axes.grid(alpha=0.3)
        axes.set_xticks([row[key] for row in chosen], [f"{row[key]:g}" for row in chosen])
        axes.minorticks_off()
    panels[0].set(xlabel=f"S, at M = {at_capacity}", ylabel="accuracy of the final classifier, %")
    panels[1].set(xlabel=f"M in batches, at S = {USUAL_FACTOR}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)


def finished(path: Path, settings: Sequence[str], config: str | None) -> list[Result]:
    """The runs that a file has already, if they are of the same settings and versions."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if (found["settings"], found["config"], found["versions"]) != (list(settings), config, versions()):
        return []
    return [Result(**one | {"case": Case(**one["case"])}) for one in found["runs"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json and .png")
    parser.add_argument("--config", help="YAML file (default: digits, a small VGG8b in four blocks)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS, metavar="S", help="1 is no slow block")
    parser.add_argument("--capacities", type=int, nargs="*", default=CAPACITIES, metavar="M")
    parser.add_argument("--at-capacity", type=int, default=USUAL_CAPACITY, metavar="M", help="of the sweep over S")
    parser.add_argument("--smoke", action="store_true", help="a small network, two epochs, one seed, few values")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    settings = [*(() if arguments.config else DEFAULTS), *arguments.overrides]
    seeds, factors, capacities = arguments.seeds, arguments.factors, arguments.capacities
    if arguments.smoke:
        settings, seeds, factors, capacities = [*settings, *SMALL], [0], (1.0, 2.0), (1, 5)
    blocks = make_plan(load_config(arguments.config, settings), 1).blueprint.num_blocks
    jobs = [(case, seed) for seed in seeds for case in all_cases(blocks, factors, capacities, arguments.at_capacity)]
    data = arguments.out.with_suffix(".json")
    known = {(one.case, one.seed): one for one in finished(data, settings, arguments.config)}
    for job in track(jobs, "runs", console=Console(stderr=True)):
        if job not in known:
            known[job] = run_case(job[0], arguments.config, settings, job[1])
            _write(data, arguments.config, settings, list(known.values()))
    rows = summarise([known[job] for job in jobs])
    Console(width=150).print(table(rows))
    plot(rows, arguments.out.with_suffix(".png"), arguments.at_capacity)


def _write(path: Path, config: str | None, settings: Sequence[str], results: Sequence[Result]) -> None:
    answer = {
        "command": "python -m benchmarks.staleness " + " ".join(sys.argv[1:]),
        "config": config,
        "settings": list(settings),
        "hardware": hardware(),
        "versions": versions(),
        "rows": summarise(results),
        "runs": [asdict(one) for one in results],
    }
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
