"""How often a replay buffer should let one batch be read: accuracy and time with each `buffers.max_reuse`.

    python -m benchmarks.reuse [section.key=value ...] --out benchmarks/results/reuse [--seeds 0 1 2] [--smoke]

A network of four stages on digits, with every stage at its own speed, and with the first or the third stage slowed (it
sleeps, so the slowing takes no core from the others): with FIFO, and with replay buffers whose batches may be read once,
twice, or without a limit. All get the same steps, data, optimizer and schedule.

Accuracy is that of the network's own classifier and of the ensemble on the held-out part at the end; reuse and staleness are
of the stage with the most. One seed is one repeat: it runs every case in turn; figures are medians over the seeds with the
range.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engines.timing import spread
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.workers.telemetry.machine import hardware, versions

STAGES = 4
FACTOR = 2.0
SLOWED = (-1, 0, 2)
"""Stages that are slowed, one at a time; -1: none."""
COUPLINGS = {
    "FIFO": ("buffers.policy=fifo",),
    **{f"max_reuse={reads}": ("buffers.policy=replay", f"buffers.max_reuse={reads}") for reads in (1, 2, 0)},
}
DEFAULTS = (
    "data.name=digits",
    "data.batch_size=64",
    "model.name=vgg8b",
    "model.width=0.25",
    f"partition.blocks={STAGES}",
    "head.name=mlp_sr",
    "optimizer.lr=0.05",
    "optimizer.schedule=cosine",
    "training.epochs=15",
    "evaluation.every_epochs=15",
)
SMALL = ("model.width=0.05", "training.epochs=1", "evaluation.every_epochs=1")
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Result:
    """What one run gave; `slow_stage` is -1 where none is slowed."""

    coupling: str
    slow_stage: int
    seed: int
    accuracy: float
    ensemble: float
    train_s: float
    reuse_mean: float
    staleness_mean: float


def run_case(coupling: str, slow_stage: int, overrides: Sequence[str], seed: int) -> Result:
    """Trains once, in fresh processes."""
    settings = [*DEFAULTS, *overrides, *COUPLINGS[coupling], f"training.seed={seed}"]
    if slow_stage >= 0:
        settings += [f"debug.slow_stage={slow_stage}", f"debug.slow_factor={FACTOR}"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline(settings, STAGES, Path(folder) / "run", TIMEOUT_S)
        if any(outcome.exit_codes):
            raise RuntimeError(f"{coupling}, stage {slow_stage} slowed, failed:\n" + "\n".join(outcome.printed))
        summary = outcome.summary
    accuracy, stages = summary["accuracy"], summary["stages"][1:]
    reuse, staleness = (max(stage[key] for stage in stages) for key in ("reuse_mean", "staleness_mean"))
    return Result(coupling, slow_stage, seed, accuracy["final"], accuracy["ensemble"], summary["train_s"], reuse, staleness)


def summarise(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row per slowed stage and coupling, with medians and ranges over the seeds."""
    rows = []
    for slow_stage, coupling in dict.fromkeys((one.slow_stage, one.coupling) for one in results):
        group = [one for one in results if (one.slow_stage, one.coupling) == (slow_stage, coupling)]
        figures = {
            key: spread([getattr(one, key) for one in group])
            for key in ("accuracy", "ensemble", "train_s", "reuse_mean", "staleness_mean")
        }
        rows.append({"coupling": coupling, "slow_stage": slow_stage, "seeds": len(group)} | figures)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per case."""
    result = Table("slowed", "coupling", "accuracy %", "ensemble %", "seconds", "reuse", "staleness")
    for row in rows:
        percent = [{end: 100 * value for end, value in row[key].items()} for key in ("accuracy", "ensemble")]
        shown = [_shown(one, 1) for one in (*percent, row["train_s"])]
        others = [_shown(row[key], 2) for key in ("reuse_mean", "staleness_mean")]
        result.add_row(f"stage {row['slow_stage']}" if row["slow_stage"] >= 0 else "none", row["coupling"], *shown, *others)
    return result


def _shown(figure: dict[str, float], digits: int) -> str:
    return f"{figure['median']:.{digits}f} ({figure['min']:.{digits}f} .. {figure['max']:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true", help="a small network, one epoch, no stage slowed")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    overrides, seeds, slowed = [*arguments.overrides, *(SMALL if arguments.smoke else ())], arguments.seeds, SLOWED
    if arguments.smoke:
        seeds, slowed = [0], (-1,)
    jobs = [(coupling, stage, seed) for seed in seeds for stage in slowed for coupling in COUPLINGS]
    progress = track(jobs, "runs", console=Console(stderr=True))
    results = [run_case(coupling, stage, overrides, seed) for coupling, stage, seed in progress]
    rows = summarise(results)
    Console(width=140).print(table(rows))
    answer = {
        "command": "python -m benchmarks.reuse " + " ".join(sys.argv[1:]),
        "settings": [*DEFAULTS, *overrides],
        "factor": FACTOR,
        "hardware": hardware(),
        "versions": versions(),
        "rows": rows,
        "runs": [asdict(result) for result in results],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
