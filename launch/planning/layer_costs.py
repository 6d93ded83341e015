"""Measures the cost of training small blocks on this process's device; the cost of every other block follows from it."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.planning.traffic import bytes_after
from greedypipe.pipeline.balance import Costs
from greedypipe.pipeline.batch import IMAGE, Batch, made_up
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.feedback import Feedback
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.partition import AUTO, PartitionConfig, even_starts
from greedypipe.workers.devices.current import waiting_for

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Profile:
    """Costs of the units of a network, and the first layer of each."""

    names: tuple[str, ...]
    costs: Costs

    def boundaries(self, starts: tuple[int, ...]) -> tuple[str, ...]:
        """The value of `partition.boundaries` for blocks that begin at these units."""
        return tuple(self.names[start] for start in starts[1:])

    def starts(self, boundaries: tuple[str, ...]) -> tuple[int, ...]:
        """The units at which the blocks of these boundaries begin."""
        return (0, *(self.names.index(name) for name in boundaries))


def check_boundaries(plan: Plan) -> None:
    """Checks that a cut at the plan's boundaries can be judged.

    Raises:
        ValueError: A boundary is a layer without parameters, which is not measured separately.
    """
    names = _unit_names(plan.blueprint.network.layers)
    boundaries = plan.config.partition.boundaries
    unknown = [] if boundaries == AUTO else [name for name in boundaries if name not in names]
    if unknown:
        raise ValueError(
            f"partition.boundaries: {', '.join(unknown)} cannot be judged; layers that can: {', '.join(names[1:])}"
        )


def profile_layers(plan: Plan, device: torch.device) -> Profile:
    """Trains blocks of one unit and of two neighbouring units, in turn, for `partition.profile_s` seconds in all (three
    rounds at least), and takes medians.

    A unit is a layer with parameters and the layers without that follow it. The blocks are the run's own, with method,
    head, precision and optimizer, but train copies of its layers, uncompiled, with this process's threads and random
    inputs. Effects across more than two consecutive units, such as shared caches, are not captured. Blocks until all is
    measured.
    """
    names = _unit_names(plan.blueprint.network.layers)
    copied = plan.blueprint.for_trials()
    finest = _cut(copied, names, range(len(names)))
    batch = random_batch(plan, device)
    inputs = [random_input(finest, unit, batch, device) for unit in range(len(names))]
    alone = [_Trial(finest, unit, inputs[unit], batch) for unit in range(len(names))]
    pairs = [_Trial(*pair, x, batch) for pair, x in zip(_pairs(copied, names), inputs, strict=False)]
    # The first round warms up, allocator, kernels, optimizer state; and turns are whole when feedback on a batch comes.
    warm_up = 1 + max(trial.lag for trial in alone)
    rounds: list[list[tuple[float, float]]] = []
    deadline = time.perf_counter() + plan.config.partition.profile_s
    while len(rounds) < warm_up + LEAST_ROUNDS or time.perf_counter() < deadline:
        rounds.append(_measure(alone, pairs))
    columns = [[*zip(*column, strict=True)] for column in zip(*rounds[warm_up:], strict=True)]
    alone_s = tuple(statistics.median(seconds) for seconds, _ in columns)
    before_s = tuple(max(0.0, statistics.median(more)) for _, more in columns[1:])
    return Profile(names, Costs(alone_s, before_s, bytes_after(finest, plan.config.link, plan.config.data.batch_size)))


def _unit_names(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The layers that can begin a block of their own."""
    units = max(1, sum(layer.has_parameters for layer in layers))
    return tuple(layers[start].name for start in even_starts(layers, units))


def _cut(blueprint: Blueprint, names: Sequence[str], starts: Sequence[int]) -> Blueprint:
    boundaries = tuple(names[start] for start in starts if start)
    return blueprint.recut(PartitionConfig(blocks=len(boundaries) + 1, boundaries=boundaries))


def _pairs(blueprint: Blueprint, names: Sequence[str]) -> Iterator[tuple[Blueprint, int]]:
    """Cut and index of the blocks of units 0 and 1, 1 and 2, 2 and 3 ...: the cut between pairs that begin evenly, and the
    other one."""
    begun_evenly, begun_oddly = (_cut(blueprint, names, [0, *range(first, len(names), 2)]) for first in (2, 1))
    for unit in range(len(names) - 1):
        yield (begun_oddly, unit // 2 + 1) if unit % 2 else (begun_evenly, unit // 2)


def random_batch(plan: Plan, device: torch.device) -> Batch:
    """The part of a batch that blocks receive besides their input."""
    task = plan.blueprint.task
    rows = plan.config.data.batch_size * task.views
    labels = torch.randint(plan.data.num_classes, (rows,), device=device)
    extras = {spec.name: made_up(spec, rows, device) for spec in task.extras}
    return Batch(0, labels, {IMAGE: torch.rand(rows, *plan.data.input_shape, device=device), **extras})


def random_input(finest: Blueprint, unit: int, batch: Batch, device: torch.device) -> Tensor:
    """An input as it would come out of a slot; images stay fp32, as the first block receives them."""
    dtype = finest.precision.activation_dtype if unit else torch.float32
    x = torch.randn(len(batch.labels), *finest.shapes[unit].input, device=device)
    return finest.precision.canonical(x.to(dtype))


class _Trial:
    """Block `index` of a cut under measurement, always on the same batch and with the same feedback, which is zero."""

    def __init__(self, cut: Blueprint, index: int, x: Tensor, batch: Batch) -> None:
        self._block, self._x, self._batch = cut.build_block(index, x.device), x, batch
        self._feedback = cut.zero_feedback(index, len(batch.labels), x.device)
        self._synchronise = waiting_for(x.device)

    @property
    def lag(self) -> int:
        """Turns until feedback on the first batch comes."""
        return self._block.timing.lag

    def seconds(self) -> float:
        """Seconds of one turn."""
        self._synchronise()
        started = time.perf_counter()
        _turn(self._block, self._x, self._batch, self._feedback)
        self._synchronise()
        return time.perf_counter() - started


def _turn(block: Block, x: Tensor, batch: Batch, feedback: Feedback) -> None:
    """Trains a block on a batch: the only place here that knows how blocks are called."""
    block.forward(x, batch)
    block.learn(feedback)


def _measure(alone: Sequence[_Trial], pairs: Sequence[_Trial]) -> list[tuple[float, float]]:
    """One round: seconds of every unit alone, and the seconds that the unit before it adds (0 for the first)."""
    found = [(alone[0].seconds(), 0.0)]
    for trial, pair in zip(alone[1:], pairs, strict=True):
        # Measured back to back, so that a machine that slows down affects both alike.
        seconds = trial.seconds()
        found.append((seconds, pair.seconds() - seconds))
    return found
