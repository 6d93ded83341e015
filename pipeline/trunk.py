"""The layers of one block as a single module, run in the run's precision; and how an earlier batch is run again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.randomness import derive_seed, seed_global_generator


class Generator:
    """The generator that a block's dropout draws from: seeded before each act from (seed, act, index, turn) alone.

    Others may have drawn from it since, so it is seeded once per act.
    """

    def __init__(self, device: torch.device, seed: int, index: int) -> None:
        self._device = device
        self._seed = seed
        self._index = index
        self._own_part: tuple[int, ...] = ()

    def become_replica(self, number: int) -> None:
        """Makes its numbers those of replica `number`; the first one has those of a block without replicas."""
        self._own_part = (number,) if number else ()

    def sow(self, act: str, turn: int) -> None:
        """Seeds it for one act of one turn."""
        seed_global_generator(self._device, derive_seed(self._seed, act, self._index, turn, *self._own_part))


class Trunk:
    """The layers of a block.

    Args:
        device: Of the layers.
        generator: The block's.
    """

    def __init__(self, layers: Sequence[Layer], precision: Precision, generator: Generator, device: torch.device) -> None:
        self.module = nn.Sequential(*(layer.module for layer in layers))
        self._precision = precision
        self._generator = generator
        self.device = device

    def run(self, x: Tensor) -> Tensor:
        """The activation of `x`, in the precision's dtype and layout; whether it has a graph is the caller's choice."""
        with self._precision.autocast(self.device):
            return self._activation(x, None)

    def run_with(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """As `run`, with these parameters in the place of the layers' own."""
        with self._precision.autocast(self.device):
            return self._activation(x, weights)

    def run_again(self, x: Tensor, turn: int, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The activation of an earlier batch, with a new graph: its dropout masks are those of its own turn, and running
        statistics stay as they are. At the present weights, or at `weights`."""
        # Autocast's cache would give back casts that were made without a graph.
        with frozen_statistics(self.module), self._precision.autocast(self.device, caches=False), torch.enable_grad():
            self._generator.sow("forward", turn)
            return self._activation(x, weights)

    def perturbed(self, x: Tensor) -> Tensor:
        """The activation of an input that is no batch of the stream, in training mode; running statistics stay."""
        with frozen_statistics(self.module):
            return self.run(x)

    def copied_weights(self) -> dict[str, Tensor]:
        """Copies of the parameters, by name, that a graph may be kept on while the parameters go on."""
        return {name: value.detach().clone().requires_grad_() for name, value in self.module.named_parameters()}

    def _activation(self, x: Tensor, weights: Mapping[str, Tensor] | None) -> Tensor:
        x = self._precision.canonical(x)
        h: Tensor = self.module(x) if weights is None else functional_call(self.module, dict(weights), (x,))
        return self._precision.canonical(h.to(self._precision.activation_dtype))


@contextmanager
def tapped(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects what each of these modules returns in the body, in the order of the calls.

    The layers go on with a copy: what follows may work in place.
    """
    found: list[Tensor] = []

    def collect(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found.append(output)
        return output.clone()

    hooks = [module.register_forward_hook(collect) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Running statistics of batch normalisation stay as they are in the body, bit for bit; outputs in training mode too.

    Restoring the statistics afterwards would not do: autograd has saved them for the backward pass.
    """
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    before = [(norm.momentum, None if (count := norm.num_batches_tracked) is None else count.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
