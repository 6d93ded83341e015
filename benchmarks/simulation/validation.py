"""The simulator against real runs."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines import greedypipe
from benchmarks.engines.plain import StageAlone
from benchmarks.engines.timing import Case, step_times
from benchmarks.simulation.costs import Pipeline, StageCost
from benchmarks.simulation.decoupled import simulate
from greedypipe.launch.config.loader import load_config

FORWARD_SHARE = 1 / 3
"""Of a stage's own time, where it has not been measured: it moves a send within a step, not the length of the step."""
BATCHES, WARMUP = 300, 100
CORES = len(os.sched_getaffinity(0))
NETWORK = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.batch_size=64",
    "data.samples=6400",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.125",
    "head.name=mlp_sr",
)
SMALL = ("model.width=0.05", "data.batch_size=16", "data.shape=[3,8,8]")


@dataclass(frozen=True)
class Trial:
    """A run to be foretold; `slow` is the stage that sleeps, with its factor."""

    name: str
    boundaries: tuple[str, ...]
    slow: tuple[int, float] | None = None
    overrides: tuple[str, ...] = ()

    def case(self, steps: int, smoke: bool) -> Case:
        """The run's settings and length."""
        slowed = (f"debug.slow_stage={self.slow[0]}", f"debug.slow_factor={self.slow[1]}") if self.slow else ()
        cut = (f"partition.blocks={len(self.boundaries) + 1}", f"partition.boundaries=[{','.join(self.boundaries)}]")
        network = (*NETWORK, *(SMALL if smoke else ()))
        return Case((*network, *cut, *slowed, *self.overrides), len(self.boundaries) + 1, 8, steps)


TRIALS = (
    Trial("2 even stages", ("conv4",)),
    Trial("2 uneven stages", ("conv3",)),
    Trial("2 uneven stages, capacity 1", ("conv3",), overrides=("buffers.capacity=1", "link.slots=1")),
    Trial("2 stages, stage 1 sleeps, S = 2", ("conv4",), (1, 2.0)),
    Trial("3 stages, stage 1 sleeps, S = 3", ("conv3", "conv5"), (1, 3.0)),
    Trial("4 stages", ("conv2", "conv4", "conv5")),
    Trial("replay, stage 1 sleeps, S = 2", ("conv4",), (1, 2.0), ("buffers.policy=replay", "buffers.max_reuse=0")),
)


def own_seconds(case: Case) -> list[float]:
    """Every stage's own seconds per batch without links, while all stages are at work: the copy of each activation, what the
    stages take from each other besides cores (caches, memory), and what a sleep costs when it is over, is in them; the
    sleep itself is not. Where there are more stages than cores, seconds of a core."""
    uncoupled = Case(
        tuple(one for one in case.overrides if not one.startswith(("buffers.", "link."))),
        case.num_stages,
        case.warmup_steps,
        case.steps,
    )
    debug = load_config(None, case.overrides).debug
    times = step_times(StageAlone(None, copies=True), uncoupled, case.num_stages, 1, independent=True)
    if case.num_stages > CORES:
        return [one.cpu_s for one in times]
    return [one.wall_s / (debug.slow_factor if stage == debug.slow_stage else 1) for stage, one in enumerate(times)]


def foretell(case: Case, own_s: Sequence[float]) -> list[float]:
    """Samples per second of every stage, simulated."""
    config = load_config(None, case.overrides)
    stages = [
        StageCost(
            FORWARD_SHARE * seconds,
            (1 - FORWARD_SHARE) * seconds,
            slow_factor=config.debug.slow_factor if stage == config.debug.slow_stage else 1.0,
        )
        for stage, seconds in enumerate(own_s)
    ]
    pipeline = Pipeline(stages, buffers=config.buffers, link_slots=config.link.slots, cores=CORES)
    return [outcome.batches_per_s * case.batch_size for outcome in simulate(pipeline, BATCHES, WARMUP)]


def validate(repeats: int, steps: int, smoke: bool) -> list[dict[str, Any]]:
    """Per repeat and trial: own seconds measured, then the run; simulated and measured samples per second of all stages."""
    found = []
    for repeat in range(repeats):
        for trial in TRIALS[:: 6 if smoke else 1]:
            case = trial.case(steps, smoke)
            own_s = own_seconds(case)
            ran = greedypipe.run(case, case.num_stages)
            found.append(
                {
                    "trial": trial.name,
                    "repeat": repeat,
                    "own_s": own_s,
                    "simulated_samples_per_s": foretell(case, own_s),
                    "measured_samples_per_s": ran.stage_samples_per_s,
                }
            )
    return found


def check(folder: Path) -> dict[str, Any]:
    """A finished run against a simulation of its own step times, with a device for every stage: does its throughput follow
    from them?

    Raises:
        ValueError: The folder holds no finished run.
    """
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if summary.get("status") != "finished":
        raise ValueError(f"{folder}: got no finished run, allowed: a run's folder with summary.json")
    config = load_config(str(folder / "config.yaml"), [])
    own_s = [one["step_time_s"] for one in summary["stages"]]
    stages = [StageCost(FORWARD_SHARE * seconds, (1 - FORWARD_SHARE) * seconds) for seconds in own_s]
    pipeline = Pipeline(stages, buffers=config.buffers, link_slots=config.link.slots)
    outcomes = simulate(pipeline, BATCHES, WARMUP)
    return {
        "folder": folder.name,
        "simulated_samples_per_s": [one.batches_per_s * config.data.batch_size for one in outcomes],
        "measured_samples_per_s": [one["samples_per_s"] for one in summary["stages"]],
        "simulated_wait_input": [one.wait_input_fraction for one in outcomes],
        "measured_wait_input": [one["wait_input_fraction"] for one in summary["stages"]],
    }
