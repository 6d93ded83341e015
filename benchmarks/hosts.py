"""Two hosts with a line between them: what a slow line costs a decoupled pipeline, with and without compression, and 1F1B.

    python -m benchmarks.hosts --out benchmarks/results/hosts [--rates 0 100] [--repeats 3]

Two network namespaces of this machine are the hosts (root, iproute2); a token bucket bounds the line in both directions.
Every process may use one core, as everywhere here, so the line alone differs between the rates.
"""

import argparse
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engines.greedypipe import run
from benchmarks.engines.hosts import Hosts, two_hosts, why_not
from benchmarks.engines.one_f_one_b import MICRO_BATCHES, train_one_f_one_b
from benchmarks.engines.timing import TIMEOUT_S, Case, spread
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.workers.telemetry.machine import hardware, versions

DEFAULTS = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.batch_size=128",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.25",
    "head.name=mlp_sr",
    "partition.blocks=2",
    "partition.boundaries=[conv3]",
    "faults.timeout_s=120",
)
SMALL = ("model.width=0.05", "data.batch_size=16", "data.shape=[3,8,8]", "head.name=linear")
REPLAY = ("buffers.policy=replay", "buffers.max_reuse=0")
OURS: dict[str, tuple[str, ...]] = {
    "FIFO": (),
    "FIFO, bf16 link": ("link.dtype=bf16",),
    "FIFO, int8 link": ("link.dtype=int8",),
    "replay": REPLAY,
    "replay, int8 link": (*REPLAY, "link.dtype=int8"),
}
Found = dict[str, list[dict[str, list[float]]]]
"""By line: of every repeat, samples per second of every stage by row."""
ONE_F_ONE_B = f"1F1B, {MICRO_BATCHES} micro-batches"


def measure(case: Case, hosts: Hosts) -> dict[str, list[float]]:
    """Samples per second of every stage, by row; 1F1B has one number, as its stages cannot differ."""
    found = {name: run(case, 2, *settings, enter=hosts.enter).stage_samples_per_s for name, settings in OURS.items()}
    steps = case.warmup_steps + case.steps
    settings = [*case.overrides, f"data.samples={steps * case.batch_size}", "training.epochs=1"]
    trained = train_one_f_one_b(settings, 2, warmup_steps=case.warmup_steps, timeout_s=TIMEOUT_S, enter=hosts.enter)
    return found | {ONE_F_ONE_B: [trained.samples_per_s]}


def repeat(case: Case, rates_mbit: list[int], repeats: int, say: Callable[[str], None]) -> Found:
    """Interleaved: every rate and row once per repeat."""
    found: Found = {line(rate): [] for rate in rates_mbit}
    for number in range(repeats):
        for rate in rates_mbit:
            with two_hosts(rate or None) as hosts:
                found[line(rate)].append(measure(case, hosts))
            say(f"repeat {number + 1} of {repeats}, {line(rate)}")
    return found


def line(rate_mbit: int) -> str:
    """A rate in words."""
    return f"{rate_mbit} Mbit/s" if rate_mbit else "unbounded"


def table(found: Found) -> Table:
    """One line per row and rate; medians with range."""
    shown = Table("line", "", "samples/s: stage 0", "stage 1", "slowest stage / FIFO's")
    for name, repeats in found.items():
        for row in repeats[0]:
            stages = [spread([one[row][stage] for one in repeats]) for stage in range(len(repeats[0][row]))]
            cells = [f"{one['median']:,.0f} ({one['min']:,.0f} .. {one['max']:,.0f})" for one in stages]
            ratio = spread([min(one[row]) / min(one["FIFO"]) for one in repeats])
            shown.add_row(name, row, *cells, *([""] * (2 - len(cells))), f"{ratio['median']:.2f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 100], help="of the line in Mbit/s; 0: unbounded")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--smoke", action="store_true", help="a small network, once, a fast line")
    arguments = parser.parse_args()
    if reason := why_not():
        sys.exit(f"greedypipe: this machine cannot play two hosts: {reason}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # hosts must not be left behind
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    case = Case((*DEFAULTS, *(SMALL if arguments.smoke else ())), 2, 2, 4 if arguments.smoke else arguments.steps)
    rates, repeats = ([1000], 1) if arguments.smoke else (arguments.rates, arguments.repeats)
    found = repeat(case, rates, repeats, lambda text: print(text, file=sys.stderr, flush=True))
    Console(width=140).print(table(found))
    sent_bytes = case.plan(2).layout_after(0).slot_bytes
    answer: dict[str, Any] = {
        "command": "python -m benchmarks.hosts " + " ".join(sys.argv[1:]),
        "settings": list(case.overrides),
        "message_bytes": sent_bytes,
        "hardware": hardware(),
        "versions": versions(),
        "samples_per_s": found,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
