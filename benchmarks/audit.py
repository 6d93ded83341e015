"""Speed over peak memory: local learning beside back-propagation that saves memory, on the same cores.

    python -m benchmarks.audit [section.key=value ...] --out benchmarks/results/audit [--repeats 3] [--steps 6] [--smoke]

Back-propagation, plain, with gradients accumulated over micro-batches and with recomputed activations
(torch.utils.checkpoint), has the same number of cores as the rows of local learning beside it: threads where those have
processes. 1F1B has one process per stage. All rows train the same network on the same batches with the same optimizer; rows
take turns, so that a repeat has each once, and figures are medians over the repeats.

Memory is the most that a process has held while it trained, above what it held before: parameters, gradients, optimizer,
activations, batches and slots. The largest process's is what a device must have; of pages that two processes share both
count them. For every row of local learning the table names the fastest back-propagation that needs no more memory in its
largest process: local learning gains where it is faster than that, or where there is none. Accuracies are another table's
(benchmarks.recipes).
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engines import greedypipe
from benchmarks.engines.frugal import Accumulated, Recomputed, num_layers
from benchmarks.engines.idle import idle_bytes
from benchmarks.engines.plain import back_propagation
from benchmarks.engines.timing import Case, Worker, spread, step_times
from benchmarks.engines.torch_pipelining import Pipelining
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.telemetry.machine import hardware, versions

NETWORK = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.batch_size=128",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.5",
    "partition.blocks=4",
    "partition.boundaries=[conv3,conv4,conv5]",
    "head.name=conv",
    "optimizer.lr=0.1",
    "optimizer.nesterov=true",
)
LOCAL = {"local, one-way": (), "local, late_chain": ("method.name=late_chain",)}
MICRO_BATCHES, WARMUP_STEPS = (2, 4, 8), 2
SMALL = ("model.width=0.1", "data.batch_size=32")


@dataclass(frozen=True)
class Found:
    """One measurement."""

    samples_per_s: float
    process_bytes: Sequence[int]


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes:
        cores: How many it may use; rows are compared with rows of as many.
        is_local: Whether it is local learning, and not back-propagation.
    """

    name: str
    cores: int
    is_local: bool
    measure: Callable[[], Found]


def all_rows(case: Case, idle: int) -> Iterator[Row]:
    """Back-propagation, then local learning, on one core and on as many as there are stages."""
    segments = sorted({2, 4, num_layers(case)})
    ways: dict[str, Worker] = {"back-propagation": back_propagation}
    ways |= {f"accumulated over {count}": Accumulated(count) for count in MICRO_BATCHES}
    ways |= {f"recomputed in {count} segments": Recomputed(count) for count in segments}
    for cores in dict.fromkeys((1, case.num_stages)):
        # Data that lie in memory are as large in every row.
        same = case.with_overrides(f"data.samples={greedypipe.steps_of(case, cores) * case.batch_size}")
        for name, worker in ways.items():
            yield Row(name, cores, False, partial(_timed, worker, same, 1, cores))
        if cores > 1:
            pipelining = Pipelining("1F1B", 4, _whole_stages(case, cores))
            yield Row("1F1B, 4 micro-batches", cores, False, partial(_timed, pipelining, same, cores, 1))
        for name, overrides in LOCAL.items():
            yield Row(name, cores, True, partial(_ran, case, cores, overrides, idle))


def _whole_stages(case: Case, stages: int) -> tuple[str, ...]:
    """One block per stage, where local learning has several."""
    plan = case.plan(stages)
    cuts = [plan.config.partition.boundaries[plan.placement.blocks_of(stage)[0] - 1] for stage in range(1, stages)]
    return f"partition.blocks={stages}", f"partition.boundaries=[{','.join(cuts)}]"


def _timed(worker: Worker, case: Case, processes: int, threads: int) -> Found:
    found = step_times(worker, case, processes, threads)
    return Found(case.batch_size / max(one.wall_s for one in found), [one.peak_bytes for one in found])


def _ran(case: Case, processes: int, overrides: Sequence[str], idle: int) -> Found:
    ran = greedypipe.run(case, processes, *overrides)
    return Found(ran.samples_per_s, [stage["peak_memory_bytes"] - idle for stage in ran.stages])


def summarise(rows: Sequence[Row], found: Sequence[Mapping[str, Found]]) -> list[dict[str, Any]]:
    """Per row its medians over the repeats, and for local learning what back-propagation gives for no more memory."""
    answer = [_medians(row, [one[key_of(row)] for one in found]) for row in rows]
    for own in answer:
        others = [one for one in answer if one["cores"] == own["cores"] and not one["local"]]
        frugal = [one for one in others if one["largest_bytes"] <= own["largest_bytes"]]
        if own["local"] and frugal:
            rival = max(frugal, key=lambda one: float(one["samples_per_s"]["median"]))
            ratios = [one[own["key"]].samples_per_s / one[rival["key"]].samples_per_s for one in found]
            own |= {"rival": rival["name"], "over_rival": spread(ratios)}
    return answer


def key_of(row: Row) -> str:
    """Tells a row from all others."""
    return f"{row.name}, cores: {row.cores}"


def _medians(row: Row, found: Sequence[Found]) -> dict[str, Any]:
    return {
        "key": key_of(row),
        "name": row.name,
        "cores": row.cores,
        "local": row.is_local,
        "samples_per_s": spread([one.samples_per_s for one in found]),
        "largest_bytes": statistics.median(max(one.process_bytes) for one in found),
        "all_bytes": statistics.median(sum(one.process_bytes) for one in found),
    }


def table(answer: Sequence[Mapping[str, Any]]) -> Table:
    """One line per row."""
    shown = Table(
        "cores", "trained by", "samples/s", "largest process MB", "all MB", "fastest BP for no more memory", "ratio"
    )
    for one in answer:
        rate, ratio = one["samples_per_s"], one.get("over_rival")
        shown.add_row(
            str(one["cores"]),
            one["name"],
            f"{rate['median']:,.0f} ({rate['min']:,.0f} .. {rate['max']:,.0f})",
            f"{one['largest_bytes'] / 1e6:,.0f}",
            f"{one['all_bytes'] / 1e6:,.0f}",
            one.get("rival", "none" if one["local"] else ""),
            f"{ratio['median']:.2f} ({ratio['min']:.2f} .. {ratio['max']:.2f})" if ratio else "",
        )
    return shown


def plot(answer: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Speed over memory, a picture per number of cores; up and to the left is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = sorted({one["cores"] for one in answer})
    figure, all_axes = pyplot.subplots(1, len(groups), figsize=(6 * len(groups), 4.5), layout="constrained", squeeze=False)
    for axes, cores in zip(all_axes[0], groups, strict=True):
        for one in (one for one in answer if one["cores"] == cores):
            place = one["largest_bytes"] / 1e6, one["samples_per_s"]["median"]
            axes.plot(*place, "s" if one["local"] else "o", color="C1" if one["local"] else "C0")
            axes.annotate(one["name"], place, textcoords="offset points", xytext=(5, 4), fontsize=8)
        axes.set_title(f"{cores} core{'s' if cores > 1 else ''}")
        axes.set_xlabel("peak memory of the largest process, MB")
        axes.set_ylabel("samples per second")
        axes.margins(0.25)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json and .png")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a measurement")
    parser.add_argument("--stages", type=int, default=2, help="processes, and cores, of the second group of rows")
    parser.add_argument("--smoke", action="store_true", help="a narrow network, two steps, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    overrides, repeats, steps = (*NETWORK, *arguments.overrides), arguments.repeats, arguments.steps
    if arguments.smoke:
        overrides, repeats, steps = (*overrides, *SMALL), 1, 2
    case = Case(overrides, arguments.stages, WARMUP_STEPS, steps)
    rows = list(all_rows(case, idle_bytes()))
    found: list[dict[str, Found]] = [{} for _ in range(repeats)]
    turns = [(one, row) for one in found for row in rows]
    for one, row in track(turns, "rows", console=Console(stderr=True)):
        one[key_of(row)] = row.measure()
    answer = summarise(rows, found)
    Console(width=150).print(table(answer))
    text = {
        "command": "python -m benchmarks.audit " + " ".join(sys.argv[1:]),
        "settings": list(overrides),
        "hardware": hardware(),
        "versions": versions(),
        "rows": answer,
        "runs": [{key: asdict(value) for key, value in one.items()} for one in found],
    }
    write_atomically(arguments.out.with_suffix(".json"), json.dumps(text, indent=1) + "\n")
    plot(answer, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
