"""Measures what training each layer, and a head behind it, costs on this process's device."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.balance import Costs
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, TensorSpec
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.optimizer import build_optimizer
from greedypipe.pipeline.partition import AUTO
from greedypipe.workers.links.messages import Kind, MessageLayout

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Profile:
    """Costs of the units of a network, and the layer that each begins with."""

    names: tuple[str, ...]
    costs: Costs

    def boundaries(self, starts: tuple[int, ...]) -> tuple[str, ...]:
        """The value of `partition.boundaries` that makes blocks begin at these units."""
        return tuple(self.names[start] for start in starts[1:])

    def starts(self, boundaries: tuple[str, ...]) -> tuple[int, ...]:
        """The units at which these blocks begin."""
        return (0, *(self.names.index(name) for name in boundaries))


def check_boundaries(plan: Plan) -> None:
    """Whether a cut at the plan's boundaries can be judged.

    Raises:
        ValueError: A boundary is a layer without parameters, which is not measured for itself.
    """
    names = _unit_names(_finest(plan))
    boundaries = plan.config.partition.boundaries
    unknown = [] if boundaries == AUTO else [name for name in boundaries if name not in names]
    if unknown:
        raise ValueError(
            f"partition.boundaries: {', '.join(unknown)} cannot be judged; layers that can: {', '.join(names[1:])}"
        )


def profile_layers(plan: Plan, device: torch.device) -> Profile:
    """Trains every unit of the network for itself, in turn, for `partition.profile_s` seconds in all (three rounds at
    least), and takes medians.

    A unit is a layer with parameters and those without that follow it. Batch size, precision, memory layout, loss, head
    and optimizer are the run's; threads are this process's. Inputs are random. What units share when they follow each
    other in one block, such as caches, is not seen. Blocks.
    """
    finest = _finest(plan)
    units = [_Unit(finest, index, device) for index in range(finest.blueprint.num_blocks)]
    rounds: list[list[tuple[float, float, float]]] = []
    deadline = time.perf_counter() + plan.config.partition.profile_s
    while len(rounds) <= LEAST_ROUNDS or time.perf_counter() < deadline:
        rounds.append([unit.measure() for unit in units])
    # The first round warms up: allocator, kernels, optimizer state.
    first, inner, head = zip(*(_medians(column) for column in zip(*rounds[1:], strict=True)), strict=True)
    return Profile(_unit_names(finest), Costs(first, inner, head, tuple(_sent_bytes(finest, unit.index) for unit in units)))


def _medians(rounds: tuple[tuple[float, float, float], ...]) -> tuple[float, float, float]:
    first, inner, head = (statistics.median(values) for values in zip(*rounds, strict=True))
    return first, inner, head


def _finest(plan: Plan) -> Plan:
    """The plan of the same run with as many blocks as there can be."""
    units = sum(layer.has_parameters for layer in plan.blueprint.network.layers)
    config = plan.config
    partition = config.partition.model_copy(update={"blocks": units, "boundaries": ()})
    return make_plan(config.model_copy(update={"partition": partition}), plan.placement.num_processes)


def _unit_names(finest: Plan) -> tuple[str, ...]:
    return tuple(finest.blueprint.layers_of(unit)[0].name for unit in range(finest.blueprint.num_blocks))


def _sent_bytes(plan: Plan, unit: int) -> int:
    precision, task = plan.blueprint.precision, plan.blueprint.task
    shape = plan.blueprint.shapes[unit].output
    activation = TensorSpec(ACTIVATION, shape, precision.activation_dtype, precision.channels_last)
    specs = {Kind.TRAIN: (activation, task.target)}
    return MessageLayout(plan.config.data.batch_size, specs, {ACTIVATION: plan.config.link.dtype}).slot_bytes


class _Unit:
    """One unit under measurement."""

    def __init__(self, plan: Plan, index: int, device: torch.device) -> None:
        self.index = index
        self._block: Block = plan.blueprint.build_block(index, device)
        self._trunk = nn.Sequential(*(layer.module for layer in self._block.layers))
        self._optimizers = [_optimizer(plan, module) for module in (self._trunk, self._block.method)]
        self._precision, self._device = plan.blueprint.precision, device
        batch = plan.config.data.batch_size
        # What comes in is not the first layer's own work to convert.
        dtype = torch.float32 if index == 0 else self._precision.activation_dtype
        self._x = self._precision.canonical(torch.randn(batch, *self._block.shapes.input, device=device).to(dtype))
        self._labels = torch.randint(plan.data.num_classes, (batch,), device=device)
        self._extras = {IMAGE: torch.rand(batch, *plan.data.input_shape, device=device)}

    def measure(self) -> tuple[float, float, float]:
        """Seconds as the first unit of a block, as an inner one, and of the head behind it."""
        return self._seconds(self._train_first), self._seconds(self._train_inner), self._seconds(self._train_head)

    def _seconds(self, work: Callable[[], None]) -> float:
        self._synchronise()
        started = time.perf_counter()
        work()
        self._synchronise()
        return time.perf_counter() - started

    def _train_first(self) -> None:
        self._train(self._x)

    def _train_inner(self) -> None:
        self._train(self._x.detach().requires_grad_())

    def _train(self, x: Tensor) -> None:
        learns = self._block.method.trains_layers
        with torch.set_grad_enabled(learns):
            y = self._forward(x)
        if learns and y.requires_grad:
            y.backward(torch.ones_like(y))
            self._step(0)
        # Head and loss take it from here.
        self._y = y.detach()

    def _forward(self, x: Tensor) -> Tensor:
        with self._precision.autocast(self._device):
            y = self._trunk(x)
        return self._precision.canonical(y.to(self._precision.activation_dtype))

    def _train_head(self) -> None:
        y = self._y.requires_grad_(self._block.method.trains_layers)
        with self._precision.autocast(self._device):
            loss = self._block.method(Sample(self._x, y, self._labels, self._extras))
        loss.backward()
        self._step(1)

    def _step(self, which: int) -> None:
        if optimizer := self._optimizers[which]:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _optimizer(plan: Plan, module: nn.Module) -> optim.Optimizer | None:
    parameters = list(module.parameters())
    return build_optimizer(plan.config.optimizer, parameters) if parameters else None
