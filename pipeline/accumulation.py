"""Optimizers whose steps follow the mean gradient of several batches."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from greedypipe.pipeline.optimization import Optimization
from greedypipe.pipeline.optimizer import OptimizerConfig


class AccumulatingOptimization(Optimization):
    """Makes a step at every `accumulate_batches`th batch that has given gradients, by their mean.

    The sum so far is part of the state, so that a run may be saved between two steps. What is left when the stream ends
    makes no step.
    """

    def __init__(
        self, config: OptimizerConfig, parameters: Iterable[nn.Parameter], steps_per_epoch: int, total_steps: int
    ) -> None:
        super().__init__(config, parameters, steps_per_epoch, total_steps)
        self._every = config.accumulate_batches
        self._batches = 0
        self._sums: list[Tensor | None] = [None] * len(self.parameters)

    def advance(self) -> bool:
        """Adds the gradients to those of earlier batches; where they are enough, as `Optimization.advance` with the mean."""
        gradients = [parameter.grad for parameter in self.parameters]
        if all(gradient is None for gradient in gradients):
            return False
        self._batches += 1
        self._sums = [_sum(*pair) for pair in zip(self._sums, gradients, strict=True)]
        if self._batches < self._every:
            return False
        for parameter, total in zip(self.parameters, self._sums, strict=True):
            parameter.grad = None if total is None else total / self._every
        self._forget()
        return super().advance()

    def state_dict(self) -> dict[str, Any]:
        """As `Optimization.state_dict`, with the gradients so far, in the order of the parameters."""
        return super().state_dict() | {"accumulated": {"batches": self._batches, "sums": list(self._sums)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Optimization.load_state_dict`; begins anew where no gradients were saved."""
        super().load_state_dict(state)
        self._forget()
        if accumulated := state.get("accumulated"):
            self._batches = accumulated["batches"]
            pairs = zip(self.parameters, accumulated["sums"], strict=True)
            self._sums = [None if total is None else total.to(parameter.device) for parameter, total in pairs]

    def _forget(self) -> None:
        self._batches = 0
        self._sums = [None] * len(self.parameters)


def make_optimization(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], steps_per_epoch: int, total_steps: int
) -> Optimization:
    """The optimization that `accumulate_batches` asks for; arguments as of `Optimization`."""
    kind = Optimization if config.accumulate_batches == 1 else AccumulatingOptimization
    return kind(config, parameters, steps_per_epoch, total_steps)


def _sum(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    # Not in place: autograd may give two parameters one tensor.
    return left if right is None else right if left is None else left + right
