"""What a turn costs with every method that lives on feedback, beside DGL's: real runs of two processes, and formulas."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engines.greedypipe import run
from benchmarks.engines.timing import Case, spread
from benchmarks.feedback_speed.formulas import FORMULAS, Cost, cost_of

DGL = "cross_entropy"
STAGES = 2
SETTINGS = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.batch_size=64",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.125",
    # Two blocks in each process, of as much work as such a network allows.
    "partition.blocks=4",
    "partition.boundaries=[conv3,conv4,conv5]",
    "head.name=mlp_sr",
    # So small that no method diverges on noise.
    "optimizer.lr=1e-8",
)
FIGURES = ("step_time_s", "wait_feedback_fraction", "peak_memory_bytes")
"""Of a stage in summary.json, in the order of `Measured`."""
LEAST_STEPS = 30
SMALL = ("model.width=0.05", "data.batch_size=8")
"""Settings of the smallest size."""


@dataclass(frozen=True)
class Measured:
    """One run: own seconds per batch, share of the time spent waiting for feedback, and peak memory, by stage."""

    samples_per_s: float
    step_s: list[float]
    wait_feedback: list[float]
    peak_bytes: list[int]

    @property
    def slowest_s(self) -> float:
        """The slowest stage's own seconds per batch."""
        return max(self.step_s)


Repeat = Mapping[str, Measured]
"""One run of every method."""


def case_of(method: str, settings: Sequence[str], steps: int) -> Case:
    """A run of a method."""
    return Case((*settings, f"method.name={method}"), STAGES, warmup_steps=10, steps=steps)


def measure(costs: Mapping[str, Cost], settings: Sequence[str], steps: int, say: Callable[[str], None]) -> Repeat:
    """Trains with every method in turn, in fresh processes; blocks.

    Args:
        steps: Of DGL; methods that cost more make fewer, for about the same time.

    Raises:
        EngineError: A run failed.
    """
    found = {}
    for method, cost in costs.items():
        say(f"costs: {method}")
        fewer = max(LEAST_STEPS, round(steps * max(costs[DGL].counted) / max(cost.counted)))
        ran = run(case_of(method, settings, min(steps, fewer)), STAGES)
        found[method] = Measured(ran.samples_per_s, *([stage[key] for stage in ran.stages] for key in FIGURES))
    return found


def costs_of(methods: Sequence[str], settings: Sequence[str]) -> dict[str, Cost]:
    """Formulas and counts of every method."""
    return {method: cost_of(case_of(method, settings, 1).plan(STAGES)) for method in methods}


def summarise(repeats: Sequence[Repeat], costs: Mapping[str, Cost]) -> list[dict[str, Any]]:
    """One row per method: each ratio is to DGL within the same repeat."""
    return [_row(method, repeats, costs) for method in repeats[0]]


def _row(method: str, repeats: Sequence[Repeat], costs: Mapping[str, Cost]) -> dict[str, Any]:
    pairs = [(repeat[method], repeat[DGL]) for repeat in repeats]
    mine, base = costs[method], costs[DGL]
    stages = range(STAGES)
    return {
        "method": method,
        "repeats": len(pairs),
        "formula": FORMULAS[method].words,
        "formula_over_dgl": max(mine.formula) / max(base.formula),
        "counted_over_dgl": max(mine.counted) / max(base.counted),
        "step_over_dgl": spread([one.slowest_s / dgl.slowest_s for one, dgl in pairs]),
        "throughput_over_dgl": spread([one.samples_per_s / dgl.samples_per_s for one, dgl in pairs]),
        "step_s": [statistics.median(one.step_s[stage] for one, _ in pairs) for stage in stages],
        "wait_feedback": [statistics.median(one.wait_feedback[stage] for one, _ in pairs) for stage in stages],
        "peak_bytes_over_dgl": [
            statistics.median(one.peak_bytes[stage] - dgl.peak_bytes[stage] for one, dgl in pairs) for stage in stages
        ],
        "peak_bytes": [statistics.median(one.peak_bytes[stage] for one, _ in pairs) for stage in stages],
    }
