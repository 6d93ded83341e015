"""What feedback costs: every method beside DGL, and throughput over delay and latency beside the formula.

    python -m benchmarks.feedback --out benchmarks/results/feedback [--parts costs latency] [--repeats 3] [--smoke]

Costs: each method with feedback, at its default keys, and DGL (cross_entropy) train the same network on synthetic data as
two processes with two blocks each, in turn, for about the same time. A step is the slowest stage's own seconds per batch,
without waits. Beside it stand the cost by the method's formula and the operations of one turn, counted by torch's formulas
for convolutions and matrix products, each as that of the slowest stage over DGL's. Counts leave out what autograd leaves
out: where nobody wants the gradient of a block's input, as with DGL, its first layer's backward pass is half as long.

Latency: stages that sleep for a known time, as threads, with the real loop, inboxes, lines and links. A message can be read
`l` seconds after it was sent, in both directions. The formula, for K stages of C seconds per batch and a delay D:

    seconds per batch = max over h = 0 .. K - 1 of ((h + 1) C + 2 h l) / (h D + 1)

Repeats are interleaved; figures are medians with the range, ratios those within a repeat. Repeats that OUT.json has already,
of the same settings and versions, are not repeated; a part that is not asked for stays as it is.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.feedback_speed import costs, latency
from benchmarks.feedback_speed.formulas import FORMULAS
from benchmarks.feedback_speed.latency import Setting
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.workers.telemetry.machine import hardware, versions

PARTS = ("costs", "latency")
STAGES, DELAYS, LATENCIES_S, TURN_S = (2, 4), (0, 1, 2), (0.0, 0.02, 0.1), 0.05
Part = dict[str, Any]
"""Settings, rows, and what every repeat has measured."""


def find_costs(methods: Sequence[str], settings: Sequence[str], steps: int, repeats: int, before: Part) -> Part:
    """Every method, so many times; less what has been measured before."""
    asked = {"settings": list(settings), "methods": list(methods), "steps": steps}
    done: list[costs.Repeat] = [
        {method: costs.Measured(**one) for method, one in repeat.items()} for repeat in _repeats(before, asked)
    ]
    expected = costs.costs_of(methods, settings)
    while len(done) < repeats:
        done.append(costs.measure(expected, settings, steps, _say))
    kept = [{method: asdict(one) for method, one in repeat.items()} for repeat in done]
    return {"asked": asked, "rows": costs.summarise(done, expected), "repeats": kept}


def find_latency(settings: Sequence[Setting], seconds: float, repeats: int, before: Part) -> Part:
    """Every setting, so many times; less what has been measured before."""
    asked = {"settings": [asdict(setting) for setting in settings], "seconds": seconds}
    done: list[list[float]] = list(_repeats(before, asked))
    while len(done) < repeats:
        _say(f"latency: repeat {len(done) + 1} of {repeats}")
        done.append([setting.measure(seconds) for setting in settings])
    periods = zip(*done, strict=True)
    rows = [latency.summarise(setting, list(found)) for setting, found in zip(settings, periods, strict=True)]
    return {"asked": asked, "rows": rows, "repeats": done}


def _repeats(before: Part, asked: Mapping[str, Any]) -> list[Any]:
    return list(before["repeats"]) if before.get("asked") == asked else []


def costs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per method."""
    shown = Table("method", "formula", "by formula", "counted", "step / DGL's", "throughput / DGL's", "waits", "memory, MB")
    for row in rows:
        expected = (f"{row[key]:.2f}" for key in ("formula_over_dgl", "counted_over_dgl"))
        measured = (_shown(row[key]) for key in ("step_over_dgl", "throughput_over_dgl"))
        waits = ", ".join(f"{100 * share:.0f}%" for share in row["wait_feedback"])
        memory = ", ".join(f"{size / 1e6:+,.0f}" for size in row["peak_bytes_over_dgl"])
        shown.add_row(row["method"], row["formula"], *expected, *measured, waits, memory)
    return shown


def latency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per setting."""
    shown = Table("stages", "delay", "latency, ms", "formula, ms", "measured, ms", "throughput / formula's")
    for row in rows:
        where = str(row["stages"]), str(row["delay"]), f"{1000 * row['latency_s']:.0f}"
        measured = f"{1000 * row['measured_s']['median']:.1f}"
        shown.add_row(*where, f"{1000 * row['formula_s']:.1f}", measured, _shown(row["throughput_over_formula"]))
    return shown


def _shown(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f} .. {found['max']:.2f})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(arguments: argparse.Namespace, before: Mapping[str, Part]) -> dict[str, Part]:
    """The parts that were asked for."""
    smoke, repeats = arguments.smoke, 1 if arguments.smoke else arguments.repeats
    found = {}
    if "costs" in arguments.parts:
        methods = [costs.DGL, "late_chain"] if smoke else list(FORMULAS)
        settings = [*costs.SETTINGS, *(costs.SMALL if smoke else ())]
        steps = 4 if smoke else arguments.steps
        found["costs"] = find_costs(methods, settings, steps, repeats, before.get("costs", {}))
    if "latency" in arguments.parts:
        grid = (STAGES[:1], DELAYS[:2], (0.0, 0.01), 0.01) if smoke else (STAGES, DELAYS, LATENCIES_S, TURN_S)
        found["latency"] = find_latency(grid_of(*grid), 0.0 if smoke else 3.0, repeats, before.get("latency", {}))
    return found


def grid_of(stages: Sequence[int], delays: Sequence[int], latencies_s: Sequence[float], turn_s: float) -> list[Setting]:
    """Every combination."""
    return [Setting(count, delay, latency_s, turn_s) for count in stages for delay in delays for latency_s in latencies_s]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="timed steps of DGL")
    parser.add_argument("--smoke", action="store_true", help="one method, few steps, few settings, once")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    path = arguments.out.with_suffix(".json")
    head = {"hardware": hardware(), "versions": versions()}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = before.get("parts", {}) if all(before.get(key) == value for key, value in head.items()) else {}
    parts |= measure(arguments, parts)
    console = Console(width=150)
    if "costs" in arguments.parts:
        console.print(costs_table(parts["costs"]["rows"]))
    if "latency" in arguments.parts:
        console.print(latency_table(parts["latency"]["rows"]))
    some = "" if set(PARTS) <= parts.keys() else f" --parts {' '.join(parts)}"
    answer = {"command": f"python -m benchmarks.feedback{some} --out {arguments.out}", **head, "parts": parts}
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
