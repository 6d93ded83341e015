"""Throughput of decoupled training beside everything a user might pick instead, in one run.

    python -m benchmarks.throughput [section.key=value ...] --out benchmarks/results/throughput [--repeats 5]
        [--sections headline crowded tiny] [--steps 8] [--smoke]

Cuts are the planner's (launch/plan.py), made before anything is timed. Three sections. headline: one network in 2
stages, trained by back-propagation on one thread and on all cores, DDP, DGL in one loop, the schedules of
torch.distributed.pipelining, this project's runs, and the bound: each stage alone, in a process like its own, without
links. crowded: 4 stages. tiny: steps of about a millisecond.

How it is fair: every row builds the same network from the same configuration, with the same batch size, precision,
memory layout and optimizer, and draws its batches from the same source (synthetic images). Every process has one
thread, save where the row says otherwise, and the same allocator settings (workers/allocator.py). Every measurement
starts fresh processes; warm-up steps are not timed; all processes start their clocks together. Rows take turns, so
that a repeat has each of them once; ratios are taken within a repeat, and medians and ranges over the repeats are
reported. What cannot be equal: the pipelining schedules train the same layers and the classifier with end-to-end
gradients and compute no auxiliary heads; their interleaved variants have two chunks per process, cut by the same
measured layers without heads. Their numbers of micro-batches are all measured in the first repeat; later repeats
measure the best one of each schedule again.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.engines.timing import Case, EngineError
from benchmarks.throughput_rows import SCHEDULES, Row, Section, crowded, headline, tiny
from benchmarks.throughput_tables import answer_of, figures_table, plot, profile_table, rates_table
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.planning.auto_cut import forecast
from greedypipe.launch.planning.layer_costs import profile_layers
from greedypipe.pipeline.balance import balanced_starts
from greedypipe.workers.memory import keep_freed_memory
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
    "optimizer.momentum=0.9",
)
DIGITS = (
    "data.name=digits",
    "data.batch_size=64",
    "data.drop_last=true",
    "data.augment=none",
    "model.name=mlp",
    "model.depth=4",
    "model.hidden=128",
    "head.name=linear",
    "training.epochs=100",
)
SMALL = ("model.width=0.05", "data.batch_size=16", "data.shape=[3,8,8]", "data.samples=1600")
MICRO_BATCHES = (1, 2, 4, 8, 16)
ROUND_STEPS = 2
Rates = dict[str, float | str]


def sections_of(arguments: argparse.Namespace) -> list[Section]:
    """What the command line asks for."""
    overrides, steps = (*DEFAULTS, *arguments.overrides), arguments.steps
    micro_batches: Sequence[int] = MICRO_BATCHES
    if arguments.smoke:
        overrides, steps, micro_batches = (*DEFAULTS, *SMALL), 4, (2,)
    wide, chunks = cut_by_planner(Case(overrides, 2, 2, steps), arguments.profile_s)
    make: dict[str, Callable[[], Section]] = {
        "headline": lambda: headline(wide, micro_batches, chunks),
        "crowded": lambda: crowded(cut_by_planner(Case(overrides, 4, 4, steps), arguments.profile_s)[0]),
        "tiny": lambda: tiny(cut_by_planner(Case(DIGITS, 2, 100, 20 if arguments.smoke else 1000), arguments.profile_s)[0]),
    }
    return [make[name]() for name in arguments.sections]


def cut_by_planner(case: Case, profile_s: float) -> tuple[Case, tuple[str, ...]]:
    """The case with one block per stage where the planner cuts; and settings of twice as many blocks without heads."""
    stages = case.num_stages
    torch.set_num_threads(1)
    keep_freed_memory()
    plan = case.with_overrides(
        f"partition.blocks={stages}", "partition.boundaries=auto", f"partition.profile_s={profile_s}"
    ).plan(stages)
    profile = profile_layers(plan, plan.placement.device_of(0, plan.config.placement))
    found = forecast(plan, profile, 0).boundaries
    # Chunks that pass gradients on: every unit costs what it adds to the next one, and the last one has the classifier.
    headless = replace(profile.costs, alone_s=(*profile.costs.before_s, profile.costs.alone_s[-1]))
    chunks = min(2 * stages, profile.costs.num_units)
    finer = profile.boundaries(balanced_starts(headless, [range(chunk, chunk + 1) for chunk in range(chunks)]))
    return case.with_overrides(*_settings(stages, found)), _settings(chunks, finer)


def _settings(blocks: int, boundaries: Sequence[str]) -> tuple[str, ...]:
    return f"partition.blocks={blocks}", f"partition.boundaries=[{','.join(boundaries)}]"


def run_section(section: Section, repeats: int, console: Console) -> list[dict[str, Any]]:
    """Measures all rows in turn; of each repeat the rates by row, errors in words, and the stages of our runs."""
    rows, done = list(section.rows), []
    for repeat in range(repeats):
        rates: Rates = {}
        stages: dict[str, Any] = {}
        for row in rows:
            console.print(f"{section.name}, repeat {repeat + 1}/{repeats}: {row.name}", highlight=False)
            try:
                rate = row.measure()
                rates[row.name] = rate.samples_per_s
                stages |= {row.name: list(rate.stages)} if rate.stages else {}
            except EngineError as error:
                rates[row.name] = str(error)
        done.append({"rates": rates, "stages": stages})
        rows = _worth_repeating(rows, rates)
    return done


def _worth_repeating(rows: Sequence[Row], rates: Rates) -> list[Row]:
    """Without what cannot run, and with each pipelining schedule at its best number of micro-batches alone."""
    able = [row for row in rows if not isinstance(rates[row.name], str)]
    best = [
        max(same, key=lambda row: float(rates[row.name]))
        for schedule in SCHEDULES
        if (same := [row for row in able if row.name.startswith(f"{schedule}, ")])
    ]
    return [row for row in able if row.group != "torch pipelining" or row in best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json and .png")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a measurement; even")
    parser.add_argument(
        "--sections", nargs="+", choices=("headline", "crowded", "tiny"), default=["headline", "crowded", "tiny"]
    )
    parser.add_argument("--profile-s", type=float, default=20.0, help="seconds for which the planner measures layers")
    parser.add_argument("--smoke", action="store_true", help="a small network, few steps, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    if arguments.steps < 2 * ROUND_STEPS or arguments.steps % ROUND_STEPS:
        parser.error(f"--steps: got {arguments.steps}, allowed: even, from {2 * ROUND_STEPS} on")
    if arguments.smoke:
        arguments.profile_s = 0.1
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    console, errors = Console(width=150), Console(stderr=True)
    answer: dict[str, Any] = {
        "command": "python -m benchmarks.throughput " + " ".join(sys.argv[1:]),
        "hardware": hardware(),
        "versions": versions(),
        "sections": {},
    }
    for section in sections_of(arguments):
        repeats = run_section(section, 1 if arguments.smoke else arguments.repeats, errors)
        answer["sections"][section.name] = found = answer_of(section, repeats)
        console.print(rates_table(section.name, found), figures_table(found), profile_table(found))
        arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    plot(answer, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
