"""How well the planner foretells a run: predicted over measured throughput, repeat by repeat.

    python -m benchmarks.planner [section.key=value ...] --out benchmarks/results/planner [--stages 2] [--smoke]

Every repeat plans anew (layers measured, network cut, cut rehearsed) and then trains with the cut that the first repeat
found: the rehearsal is of that cut too. Two predictions are judged: the rehearsal's, which launch/plan.py prints as the
predicted throughput, and the sum of the measured layers, which a run with `partition.boundaries=auto` notes.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engines.greedypipe import run
from benchmarks.engines.timing import Case, spread
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.rehearsal import rehearse
from greedypipe.launch.planning.best_cut import make_forecast
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.workers.telemetry.machine import hardware, versions

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
)
UNUSED_S = PartitionConfig().profile_s
SMALL = (
    "model.width=0.05",
    "data.batch_size=16",
    "data.shape=[3,8,8]",
    "data.samples=320",
    "partition.profile_s=0.1",
    "partition.boundaries=auto",
)


def measure(case: Case, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Per repeat: boundaries, the two predictions and the measured throughput, in samples per second."""
    found, settled = [], None
    for _ in range(repeats):
        plan, forecast = make_forecast(case.plan(case.num_stages).config, case.num_stages)
        settled = settled or forecast.boundaries
        plan = plan.recut(settled)
        rehearsal = rehearse(plan, case.batch_size / forecast.samples_per_s, seconds)
        explicit = case.with_overrides(f"partition.boundaries=[{','.join(settled)}]", f"partition.profile_s={UNUSED_S}")
        ran = run(explicit, case.num_stages)
        found.append(
            {
                "boundaries": list(forecast.boundaries),
                "rehearsed_samples_per_s": rehearsal.samples_per_s,
                "layers_samples_per_s": forecast.samples_per_s,
                "measured_samples_per_s": ran.samples_per_s,
                "imbalance": forecast.imbalance,
                "head_overhead": forecast.head_overhead,
            }
        )
    return found


def table(found: list[dict[str, Any]]) -> Table:
    """One line per kind of prediction."""
    result = Table("prediction", "samples/s", "measured samples/s", "predicted / measured", "range", "target")
    measured = statistics.median(one["measured_samples_per_s"] for one in found)
    for name in ("rehearsed", "layers"):
        ratio = ratios(found, name)
        predicted = statistics.median(one[f"{name}_samples_per_s"] for one in found)
        cells = [f"{predicted:,.1f}", f"{measured:,.1f}", f"{ratio['median']:.3f}"]
        target = "0.95 .. 1.05" if name == "rehearsed" else ""
        result.add_row(name, *cells, f"{ratio['min']:.3f} .. {ratio['max']:.3f}", target)
    return result


def ratios(found: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Predicted over measured, of each repeat."""
    return spread([one[f"{name}_samples_per_s"] / one["measured_samples_per_s"] for one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="about how long to rehearse, and to train")
    parser.add_argument("--smoke", action="store_true", help="a small network, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    overrides = (*DEFAULTS, f"partition.blocks={arguments.stages}", *(SMALL if arguments.smoke else arguments.overrides))
    case = Case(overrides, arguments.stages, 4, 4 if arguments.smoke else 20)
    found = measure(case, 0.1 if arguments.smoke else arguments.seconds, 1 if arguments.smoke else arguments.repeats)
    Console(width=140).print(table(found))
    answer = {
        "command": "python -m benchmarks.planner " + " ".join(sys.argv[1:]),
        "settings": list(overrides),
        "hardware": hardware(),
        "versions": versions(),
        "repeats": found,
        "predicted_over_measured": {name: ratios(found, name) for name in ("rehearsed", "layers")},
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
