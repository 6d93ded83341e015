"""Accuracy of decoupled training against back-propagation, with the same network, data, budget and schedule.

    python -m benchmarks.accuracy [section.key=value ...] --config configs/cifar10_vgg8b_small.yaml \\
        --out benchmarks/results/cifar10_vgg8b_small --seeds 0 1 [--cases bp fifo ...] [--smoke]

Writes OUT.json (every evaluation of every run, times, staleness, the command) and OUT.png (the learning curves). Cases
that OUT.json has already for a seed are not run again.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.workers.telemetry.machine import hardware, versions

TIMEOUT_S = 3 * 3600.0


@dataclass(frozen=True)
class Case:
    """One way of training the same network."""

    label: str
    num_processes: int
    overrides: tuple[str, ...]


REPLAY = ("buffers.policy=replay", "buffers.max_reuse=0", "buffers.capacity=4")
CASES = {
    "bp": Case("back-propagation, 1 process", 1, ("partition.blocks=1", "partition.boundaries=[]")),
    "fifo": Case("DGL, 4 blocks in 2 processes, FIFO", 2, ()),
    "fifo-bf16": Case("DGL, FIFO, bf16 on the link", 2, ("link.dtype=bf16",)),
    "fifo-int8": Case("DGL, FIFO, int8 on the link", 2, ("link.dtype=int8",)),
    "replay": Case("DGL, 4 blocks in 2 processes, replay", 2, REPLAY),
    "replay-slow0": Case("DGL, replay, stage 0 slowed 2x", 2, (*REPLAY, "debug.slow_stage=0", "debug.slow_factor=2")),
    "replay-slow1": Case("DGL, replay, stage 1 slowed 2x", 2, (*REPLAY, "debug.slow_stage=1", "debug.slow_factor=2")),
}


def run_case(case: Case, config: str, overrides: Sequence[str], seed: int) -> dict[str, Any]:
    """Trains once and returns what the run's summary says, with the command that does the same.

    Raises:
        RuntimeError: The run failed; with what its processes printed.
    """
    settings = [*overrides, *case.overrides, f"training.seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(settings, case.num_processes, Path(folder) / "run", TIMEOUT_S, config=config)
        if any(outcome.exit_codes):
            raise RuntimeError(f"{case.label} failed:\n" + "\n".join(outcome.printed))
        summary = outcome.summary
    shown = [setting for setting in settings if not setting.startswith("data.root=")]
    launcher = f"torchrun --nproc_per_node={case.num_processes} launch/run.py --config {config}"
    summary["command"] = " ".join([launcher, *shown])
    return summary


def plot(results: dict[str, Any], path: Path) -> None:
    """Final-classifier accuracy by epoch, a line per run, a colour per case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for colour, (name, runs) in enumerate(results["runs"].items()):
        for number, summary in enumerate(runs.values()):
            epochs = [evaluation["epoch"] for evaluation in summary["evaluations"]]
            accuracy = [100 * evaluation["blocks"][-1] for evaluation in summary["evaluations"]]
            label = f"{CASES[name].label} (n = {len(runs)})" if number == 0 else None
            axes.plot(epochs, accuracy, f"C{colour}o-", label=label, alpha=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch (of stage 0)")
    axes.set_ylabel("accuracy of the final classifier on the held-out part, %")
    axes.set_title(results["title"])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def table(results: dict[str, Any]) -> Table:
    """One line per case: mean and range over the seeds."""
    names = ("case", "seeds", "accuracy %", "range", "heads %", "ensemble %", "train s", "staleness", "reuse", "waits out")
    result = Table(*names)
    for name, runs in results["runs"].items():
        finals = [100 * summary["accuracy"]["final"] for summary in runs.values()]
        stages = [stage for summary in runs.values() for stage in summary["stages"]]
        heads = zip(*(summary["accuracy"]["blocks"][:-1] for summary in runs.values()), strict=True)
        ensembles = [100 * summary["accuracy"]["ensemble"] for summary in runs.values()]
        result.add_row(
            CASES[name].label,
            str(len(runs)),
            f"{statistics.mean(finals):.2f}",
            f"{min(finals):.2f} .. {max(finals):.2f}",
            " ".join(f"{100 * statistics.mean(head):.1f}" for head in heads),
            f"{statistics.mean(ensembles):.2f}",
            f"{statistics.mean(summary['train_s'] for summary in runs.values()):.0f}",
            f"{max(stage['staleness_mean'] for stage in stages):.2f}",
            f"{max(stage['reuse_mean'] for stage in stages):.2f}",
            f"{max(stage['wait_output_fraction'] for stage in stages):.1%}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.yaml")
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--smoke", action="store_true", help="one epoch of digits, two cases")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    cases = ["bp", "replay-slow1"] if arguments.smoke else arguments.cases
    overrides = [*arguments.overrides, "training.epochs=1", "model.width=0.1"] if arguments.smoke else arguments.overrides
    path = arguments.out.with_suffix(".json")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
    results |= {"title": f"{Path(arguments.config).stem}", "hardware": hardware(), "versions": versions()}
    for seed in arguments.seeds:
        for name in cases:
            runs = results["runs"].setdefault(name, {})
            if str(seed) not in runs:
                runs[str(seed)] = run_case(CASES[name], arguments.config, overrides, seed)
                path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, arguments.out.with_suffix(".png"))
    Console(width=170).print(table(results))


if __name__ == "__main__":
    main()
