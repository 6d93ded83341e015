"""What sharing a stage's batches among replicas does to accuracy: the same runs with and without, over seeds.

python -m benchmarks.replicas --out benchmarks/results/replicas [--seeds 0 1 2 3 4]
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.workers.telemetry.machine import hardware, versions

CONFIG = "configs/digits.yaml"
HEAD = "head.name=mlp_sr"
CASES: dict[str, tuple[int, ...]] = {
    "[1,1,1]": (1, 1, 1),
    "[1,2,1]": (1, 2, 1),
    "one block": (1,),
    "one block, two replicas": (2,),
}
TIMEOUT_S = 300.0


def train(replicas: tuple[int, ...], seed: int, more: list[str]) -> dict[str, Any]:
    """Accuracies, and the samples that every stage has trained on."""
    overrides = [f"partition.blocks={len(replicas)}", f"placement.replicas={list(replicas)}", f"training.seed={seed}", *more]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline([*overrides, HEAD], sum(replicas), Path(folder) / "run", TIMEOUT_S, config=CONFIG)
        if any(outcome.exit_codes):
            raise RuntimeError("\n".join(outcome.printed))
        summary = outcome.summary
    samples = [
        sum(report["samples"] for report in summary["stages"] if report["stage"] == stage) for stage in range(len(replicas))
    ]
    return {"seed": seed, "final": summary["accuracy"]["final"], "blocks": summary["accuracy"]["blocks"], "samples": samples}


def table(found: dict[str, list[dict[str, Any]]]) -> Table:
    """One line per case."""
    names = ("replicas of each stage", "seeds", "accuracy in %", "standard deviation", "range", "samples by stage")
    result = Table(*names)
    for name, runs in found.items():
        finals = [100 * run["final"] for run in runs]
        deviation = f"{statistics.stdev(finals):.2f}" if len(finals) > 1 else ""
        samples = ", ".join(f"{count:,}" for count in runs[0]["samples"])
        result.add_row(
            name,
            str(len(runs)),
            f"{statistics.mean(finals):.2f}",
            deviation,
            f"{min(finals):.2f} .. {max(finals):.2f}",
            samples,
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--smoke", action="store_true", help="one seed, one epoch, a small network")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    seeds, more = ([0], ["training.epochs=1", "model.width=0.1"]) if arguments.smoke else (arguments.seeds, [])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for seed in seeds:
        for name, replicas in CASES.items():
            found[name].append(train(replicas, seed, more))
    Console(width=140).print(table(found))
    answer = {
        "command": "python -m benchmarks.replicas " + " ".join(sys.argv[1:]),
        "config": CONFIG,
        "hardware": hardware(),
        "versions": versions(),
        "runs": found,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
