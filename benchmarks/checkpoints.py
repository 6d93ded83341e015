"""What checkpoints cost: throughput with one every few steps over throughput with none, in one run.

    python -m benchmarks.checkpoints [section.key=value ...] --out benchmarks/results/checkpoints [--interval 10] [--smoke]

FIFO, 2 stages. Both rows take turns; ratios are taken within a repeat, medians and ranges over the repeats are reported.
A stage stalls while it copies its state in memory, and while the checkpoint before is still being written.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engines.greedypipe import Ran, run
from benchmarks.engines.timing import Case, spread
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.workers.telemetry.machine import hardware, versions

STAGES = 2
DEFAULTS = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.batch_size=128",
    "data.samples=12800",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.25",
    "head.name=mlp_sr",
    f"partition.blocks={STAGES}",
    "partition.boundaries=[conv4]",
)
SMALL = ("model.width=0.05", "data.batch_size=16", "data.shape=[3,8,8]")


def measure(case: Case, interval: int) -> dict[str, Any]:
    """One repeat: samples per second without and with checkpoints, and what saving kept each stage from training."""
    none = run(case, STAGES, "checkpoint.interval_steps=0")
    some = run(case, STAGES, f"checkpoint.interval_steps={interval}")
    return {
        "none_samples_per_s": none.samples_per_s,
        "some_samples_per_s": some.samples_per_s,
        "ratio": some.samples_per_s / none.samples_per_s,
        "stalled_share": _stalled_share(some),
    }


def _stalled_share(ran: Ran) -> float:
    """Of the training time, in the stage where it is most."""
    return max(stage["save_stalled_s"] / stage["train_s"] for stage in ran.stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--interval", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32, help="timed steps of a measurement")
    parser.add_argument("--smoke", action="store_true", help="a small network, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    settings = (*DEFAULTS, *(SMALL if arguments.smoke else ()), *arguments.overrides)
    case = Case(settings, STAGES, 4, 8 if arguments.smoke else arguments.steps)
    repeats = range(1 if arguments.smoke else arguments.repeats)
    found = [measure(case, arguments.interval) for _ in track(repeats, "repeats", console=Console(stderr=True))]
    ratio, stalled = spread([one["ratio"] for one in found]), spread([one["stalled_share"] for one in found])
    table = Table("samples/s without", "with", "ratio", "range", "stalled", "target")
    table.add_row(
        f"{statistics.median(one['none_samples_per_s'] for one in found):,.1f}",
        f"{statistics.median(one['some_samples_per_s'] for one in found):,.1f}",
        f"{ratio['median']:.3f}",
        f"{ratio['min']:.3f} .. {ratio['max']:.3f}",
        f"{stalled['median']:.2%}",
        ">= 0.97",
    )
    Console(width=120).print(table)
    answer = {
        "command": "python -m benchmarks.checkpoints " + " ".join(sys.argv[1:]),
        "settings": list(settings),
        "interval_steps": arguments.interval,
        "hardware": hardware(),
        "versions": versions(),
        "ratio": ratio,
        "stalled_share": stalled,
        "repeats": found,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
