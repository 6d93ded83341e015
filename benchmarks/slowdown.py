"""What one slow stage does to the others (Belilovsky et al. 2020, section 5.3; Figure 5 there): DGL's experiment.

    python -m benchmarks.slowdown [section.key=value ...] --out benchmarks/results/slowdown [--seeds 0 1 2]
        [--factors 1 2] [--smoke]

Each stage in turn takes S times as long for a batch (it sleeps, so the slowing takes no core from the others), for
S = 1.0, 1.2, 1.5, 2.0: with FIFO buffers, with replay buffers of M = 1, 5 and 30 batches, and with 1F1B of
torch.distributed.pipelining on the same network in the same cut. All get the same steps, data, optimizer and schedule.

Throughput is each stage's own: the samples per second that it trains on after the warm-up, while all stages train, and
is compared with the same stage, policy and seed at S = 1. For "the others" the lowest ratio counts. Of
1F1B all stages have the same throughput. Accuracy is that of the network's own classifier on the held-out part at the
end. One seed is one repeat: it runs every case in turn; figures are medians over the seeds with the range.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engines.one_f_one_b import train_one_f_one_b
from benchmarks.engines.timing import spread
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.workers.telemetry.machine import hardware, versions

REPLAY = ("buffers.policy=replay", "buffers.max_reuse=0")
"""As published: a batch may be read without a limit."""
POLICIES = {
    "1F1B": (),
    "FIFO": ("buffers.policy=fifo",),
    **{f"replay M={size}": (*REPLAY, f"buffers.capacity={size}") for size in (1, 5, 30)},
}
FACTORS = (1.0, 1.2, 1.5, 2.0)
FINE_FACTORS = [1 + step / 50 for step in range(51)]
STAGES = 2
DEFAULTS = (
    "data.name=digits",
    "data.batch_size=64",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.25",
    "partition.blocks=2",
    "partition.boundaries=[conv4]",
    "head.name=mlp_sr",
    "optimizer.lr=0.05",
    "optimizer.schedule=cosine",
    "training.epochs=6",
    "evaluation.every_epochs=6",
    "logging.interval_steps=4",
)
WARMUP_STEPS = 8
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Case:
    """One way of coupling the stages, with one stage slowed; `slow_stage` is -1 where none is."""

    policy: str
    slow_stage: int
    factor: float


@dataclass(frozen=True)
class Result:
    """What one run of a case gave. `samples_per_s` has one entry per stage."""

    case: Case
    seed: int
    samples_per_s: list[float]
    accuracy: float
    staleness_mean: float
    reuse_mean: float
    dropped: int


def all_cases(policies: Iterable[str], factors: Iterable[float]) -> list[Case]:
    """Each policy unslowed and with each stage slowed by each factor."""
    slowed = [(stage, factor) for stage in range(STAGES) for factor in factors if factor > 1]
    return [Case(policy, *where) for policy in policies for where in [(-1, 1.0), *slowed]]


def run_case(case: Case, overrides: Sequence[str], seed: int) -> Result:
    """Trains once, in fresh processes."""
    settings = [*DEFAULTS, *overrides, *POLICIES[case.policy], f"training.seed={seed}"]
    if case.slow_stage >= 0:
        settings += [f"debug.slow_stage={case.slow_stage}", f"debug.slow_factor={case.factor}"]
    if case.policy == "1F1B":
        trained = train_one_f_one_b(settings, STAGES, warmup_steps=WARMUP_STEPS, timeout_s=TIMEOUT_S)
        return Result(case, seed, [trained.samples_per_s] * STAGES, trained.accuracy, 0.0, 1.0, 0)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(settings, STAGES, Path(folder) / "run", TIMEOUT_S)
        if any(outcome.exit_codes):
            raise RuntimeError(f"{case} failed:\n" + "\n".join(outcome.printed))
        summary, size = outcome.summary, load_config(None, settings).data.batch_size
        rates = outcome.steady_samples_per_s(size, WARMUP_STEPS)
        stages = summary["stages"]
    return Result(
        case,
        seed,
        rates,
        summary["accuracy"]["final"],
        max(stage["staleness_mean"] for stage in stages[1:]),
        max(stage["reuse_mean"] for stage in stages[1:]),
        sum(stage["dropped"] for stage in stages),
    )


def summarise(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Per case: throughput of the slowed stage and of the others over the unslowed run of the same seed, and accuracy."""
    unslowed = {(one.case.policy, one.seed): one.samples_per_s for one in results if one.case.slow_stage < 0}
    rows = []
    for case in dict.fromkeys(one.case for one in results):
        group = [one for one in results if one.case == case]
        ratios = [_ratios(one.samples_per_s, unslowed[case.policy, one.seed]) for one in group]
        others = [min(_without(one, case.slow_stage)) for one in ratios]
        rows.append(
            asdict(case)
            | {
                "seeds": len(group),
                "others_over_unslowed": spread(others),
                "last_stage_over_unslowed": spread([one[-1] for one in ratios]),
                "samples_per_s": [spread(list(rates)) for rates in zip(*(one.samples_per_s for one in group), strict=True)],
                "accuracy": spread([one.accuracy for one in group]),
                "staleness_mean": statistics.median(one.staleness_mean for one in group),
                "reuse_mean": statistics.median(one.reuse_mean for one in group),
                "dropped": statistics.median(one.dropped for one in group),
            }
        )
    return rows


def _ratios(rates: Sequence[float], unslowed: Sequence[float]) -> list[float]:
    return [rate / base for rate, base in zip(rates, unslowed, strict=True)]


def _without(ratios: Sequence[float], slow_stage: int) -> list[float]:
    return [ratio for stage, ratio in enumerate(ratios) if stage != slow_stage]


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per case."""
    result = Table("policy", "slowed", "S", "others' throughput / unslowed", "accuracy %", "staleness", "reuse", "dropped")
    for row in rows:
        slowed = f"stage {row['slow_stage']}" if row["slow_stage"] >= 0 else "none"
        accuracy = {key: 100 * value for key, value in row["accuracy"].items()}
        result.add_row(
            row["policy"],
            slowed,
            f"{row['factor']:.1f}",
            _shown(row["others_over_unslowed"], 2),
            _shown(accuracy, 1),
            f"{row['staleness_mean']:.1f}",
            f"{row['reuse_mean']:.2f}",
            f"{row['dropped']:.0f}",
            end_section=row["slow_stage"] == STAGES - 1 and row["factor"] == max(one["factor"] for one in rows),
        )
    return result


def _shown(spread: dict[str, float], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f} .. {spread['max']:.{digits}f})"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Throughput of the other stages, and accuracy, over S: a line per policy, a column per slowed stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, STAGES, figsize=(11, 7), layout="constrained", sharex=True, sharey="row")
    for stage in range(STAGES):
        for colour, policy in enumerate(dict.fromkeys(row["policy"] for row in rows)):
            chosen = [row for row in rows if row["policy"] == policy and row["slow_stage"] in (-1, stage)]
            for axes, key, scale in ((panels[0, stage], "others_over_unslowed", 1), (panels[1, stage], "accuracy", 100)):
                x = [row["factor"] for row in chosen]
                axes.plot(x, [scale * row[key]["median"] for row in chosen], f"C{colour}o-", label=policy)
                low, high = ([scale * row[key][end] for row in chosen] for end in ("min", "max"))
                axes.fill_between(x, low, high, color=f"C{colour}", alpha=0.15)
                axes.grid(alpha=0.3)
        panels[0, stage].plot(FINE_FACTORS, [1 / factor for factor in FINE_FACTORS], "k:", label="1 / S")
        panels[0, stage].set_title(f"stage {stage} slowed S times")
        panels[1, stage].set_xlabel("S")
    panels[0, 0].set_ylabel("throughput of the other stages / unslowed")
    panels[1, 0].set_ylabel("accuracy of the final classifier, %")
    panels[0, 0].set_ylim(bottom=0)
    panels[0, -1].legend(loc="lower left")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json and .png")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS, metavar="S", help="1 first (default: all)")
    parser.add_argument("--smoke", action="store_true", help="a small network, three epochs, two policies, S = 2 alone")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    overrides, seeds, cases = arguments.overrides, arguments.seeds, all_cases(POLICIES, arguments.factors)
    if arguments.smoke:
        overrides, seeds = ["model.width=0.05", "training.epochs=3", "evaluation.every_epochs=3"], [0]
        cases = all_cases(("1F1B", "replay M=5"), (2.0,))
    jobs = [(case, seed) for seed in seeds for case in cases]
    console = Console(width=140)
    results = [run_case(case, overrides, seed) for case, seed in track(jobs, "runs", console=Console(stderr=True))]
    rows = summarise(results)
    console.print(table(rows))
    answer = {
        "command": "python -m benchmarks.slowdown " + " ".join(sys.argv[1:]),
        "settings": [*DEFAULTS, *overrides],
        "hardware": hardware(),
        "versions": versions(),
        "rows": rows,
        "runs": [asdict(result) for result in results],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    plot(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
