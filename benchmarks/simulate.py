"""Decoupled pipelines in simulated time: checked against real runs, then asked what no machine here can show.

    python -m benchmarks.simulate --check RUN_FOLDER ...
    python -m benchmarks.simulate --validate --out benchmarks/results/simulator [--repeats 5]
    python -m benchmarks.simulate --plan --out benchmarks/results/simulator
    (--smoke: both at their smallest)

--validate measures every stage's own seconds per batch without links, simulates the pipeline from these alone, runs it,
and compares the stages' throughput. --plan: speed-up from 2 to 1,024 stages beside the schedules with a flush, slow
links, one straggler, a replicated stage, jitter against capacity. All its figures are predictions, in units of a stage's
forward pass; a backward pass takes two, a decoupled stage's head a tenth of both.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engines.timing import spread
from benchmarks.simulation.plots import plot_studies
from benchmarks.simulation.studies import all_studies
from benchmarks.simulation.validation import check, validate
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.workers.telemetry.machine import hardware, versions


def judged(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per trial the ratio simulated / measured of the last stage, and of the one that is furthest off, by repeat."""
    rows = []
    for name in dict.fromkeys(one["trial"] for one in found):
        ratios = [
            [left / right for left, right in zip(one["simulated_samples_per_s"], one["measured_samples_per_s"], strict=True)]
            for one in found
            if one["trial"] == name
        ]
        rows.append(
            {
                "trial": name,
                "last_stage": spread([one[-1] for one in ratios]),
                "worst_stage": spread([max(one, key=lambda ratio: abs(ratio - 1)) for one in ratios]),
            }
        )
    return rows


def ratio_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per trial."""
    table = Table("run", "simulated / measured, last stage", "range", "stage furthest off", "target 0.95 .. 1.05")
    for row in rows:
        ratio, worst = row["last_stage"], row["worst_stage"]
        verdict = "reached" if abs(ratio["median"] - 1) <= 0.05 else "missed"
        table.add_row(
            row["trial"],
            f"{ratio['median']:.3f}",
            f"{ratio['min']:.3f} .. {ratio['max']:.3f}",
            f"{worst['median']:.3f}",
            verdict,
        )
    return table


def check_table(found: Sequence[dict[str, Any]]) -> Table:
    """One line per stage of every run."""
    table = Table("run", "stage", "simulated samples/s", "measured", "ratio", "simulated wait in", "measured")
    for one in found:
        rates = zip(one["simulated_samples_per_s"], one["measured_samples_per_s"], strict=True)
        for stage, (left, right) in enumerate(rates):
            waits = (f"{one[key][stage]:.1%}" for key in ("simulated_wait_input", "measured_wait_input"))
            table.add_row(one["folder"], str(stage), f"{left:,.1f}", f"{right:,.1f}", f"{left / right:.3f}", *waits)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, nargs="+", default=[], metavar="RUN_FOLDER")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--out", type=Path, help="where to write, without suffix: _validation.json, _plan.json, _plan.png")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="validate and plan at their smallest size")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    console, smoke = Console(width=150), arguments.smoke
    if not (arguments.check or arguments.validate or arguments.plan or smoke):
        parser.error("say what to do: --check, --validate or --plan")
    if not arguments.out and not arguments.check:
        parser.error("--out: where to write the results")
    command = "python -m benchmarks.simulate " + " ".join(sys.argv[1:])
    about = {"command": command, "hardware": hardware(), "versions": versions()}
    if arguments.check:
        try:
            console.print(check_table([check(folder) for folder in arguments.check]))
        except ValueError as error:
            parser.error(str(error))
    if arguments.validate or smoke:
        found = validate(1 if smoke else arguments.repeats, 8 if smoke else 120, smoke)
        rows = judged(found)
        console.print(ratio_table(rows))
        _write(arguments.out, "validation", about | {"rows": rows, "runs": found})
    if arguments.plan or smoke:
        studies = all_studies(smoke)
        _write(arguments.out, "plan", about | studies)
        plot_studies(studies, arguments.out.with_name(f"{arguments.out.name}_plan.png"))


def _write(out: Path, name: str, answer: dict[str, Any]) -> None:
    out.with_name(f"{out.name}_{name}.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
