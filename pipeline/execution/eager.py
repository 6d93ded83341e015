"""Every operation is put on the device when Python comes to it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.execution.interface import Done
from greedypipe.pipeline.method import Method
from greedypipe.pipeline.optimization import Optimizations
from greedypipe.pipeline.parts import Combine, keep_gradients
from greedypipe.pipeline.precision import AS_IT_IS, Precision
from greedypipe.pipeline.sample import Sample, Turn
from greedypipe.pipeline.trunk import Trunk, tapped


class Eager:
    """The ordinary form: on any device, of any method and batch.

    Args:
        taps: Modules inside the layers whose outputs the method wants.
        wants_input_gradient: Whether inputs gather a gradient.
        has_graph: Whether the activation of a fresh batch has a graph.
        copies_weights: Whether that graph stands on copies of the parameters.
    """

    def __init__(
        self,
        trunk: Trunk,
        method: Method,
        optimizations: Optimizations,
        precision: Precision,
        *,
        wants_input_gradient: bool,
        has_graph: bool,
        copies_weights: bool,
    ) -> None:
        self.combine: Combine = keep_gradients
        self.optimizations = optimizations
        self._trunk = trunk
        self._method = method
        self._precision = precision
        self._taps: Sequence[nn.Module] = tuple(method.taps())
        self._wants_input_gradient = wants_input_gradient
        self._has_graph = has_graph
        self._copies_weights = copies_weights

    def forward(self, x: Tensor, batch: Batch, turn: int) -> Sample:
        """See `Execution.forward`."""
        x = x.detach().requires_grad_(self._wants_input_gradient)
        weights = self._trunk.copied_weights() if self._copies_weights else None
        taps: AbstractContextManager[list[Tensor] | None] = tapped(self._taps) if self._taps else AS_IT_IS
        with torch.set_grad_enabled(self._has_graph), taps as inner:
            h = self._trunk.run(x) if weights is None else self._trunk.run_with(weights, x)
        sample = Sample(
            batch.labels, batch.extras, turn, batch.batch_rows, input=x, output=h, weights=weights, trunk=self._trunk
        )
        sample.inner = tuple(inner or ())
        return sample

    def learn(self, turn: Turn) -> Done:
        """See `Execution.learn`."""
        return Done(self.gradients(turn), self.optimizations.advance())

    def gradients(self, turn: Turn) -> Tensor | None:
        """Has the method put gradients into all parameters; returns its loss."""
        self.optimizations.zero_grad()
        with self._precision.autocast(self._trunk.device, caches=False):
            loss = self._method.learn(turn)
        self.combine(self.optimizations.parameters)
        return loss

    def restart(self) -> None:
        """Nothing here depends on where the state lies."""
