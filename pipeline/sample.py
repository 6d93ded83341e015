"""One training batch as its block knows it, while it is fresh and for as long as feedback on it is due."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.trunk import Trunk


@dataclass(eq=False)
class Sample:
    """One training batch of a block.

    Attributes:
        labels: Targets of the task, [N, ...].
        extras: What else the method needs, by name, each [N, ...]: "image" is the network's input in fp32.
        turn: The block's turn in which the batch was fresh.
        batch_rows: Rows of the whole batch, where other replicas have the remaining ones; 0: these are all.
        kept: What the method wants to find again when feedback on the batch comes, by name; without graphs.
        input: Input of the block, [N, *shapes.input], without a graph of earlier blocks; None once it is not kept.
        output: Activation of the block, [N, *shapes.output]; None once it is not kept.
        weights: Copies of the layers' parameters that the activation's graph stands on, where the method keeps graphs.
        trunk: The block's layers.
        inner: Outputs of the modules that the method taps, with their graph, in the order of calls; of a fresh batch alone.
    """

    labels: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    turn: int = 0
    batch_rows: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    input: Tensor | None = None
    output: Tensor | None = None
    weights: dict[str, Tensor] | None = None
    trunk: Trunk | None = None
    inner: tuple[Tensor, ...] = ()

    @property
    def x(self) -> Tensor:
        """Input of the block, [N, *shapes.input]. Its `grad` is wanted where the method says `input_gradient`."""
        assert self.input is not None, "the method's `keeps` has no 'input'"
        return self.input

    @property
    def h(self) -> Tensor:
        """Activation of the block, [N, *shapes.output]: while the batch is fresh with its graph down to the layers, unless
        the method leaves them alone; of an earlier batch without one."""
        assert self.output is not None, "the method's `keeps` has no 'output'"
        return self.output

    def as_part(self, mean: Tensor) -> Tensor:
        """A mean over these rows as their part of the mean over the whole batch: of a loss in this form the gradients of all
        replicas add up to those of the batch. `Turn.backward` does so by itself. Without replicas it is the mean."""
        return mean * (len(self.labels) / self.batch_rows) if self.batch_rows else mean

    def replay(self, rows: int | None = None) -> Tensor:
        """The activation at the present weights, with a new graph; dropout as in the batch's own turn, running statistics
        untouched. A fresh batch has such an activation already: `h`.

        Args:
            rows: Of the first so many rows alone; None: of all.
        """
        if self.output is not None and self.output.requires_grad and self.weights is None and rows is None:
            return self.output
        assert self.trunk is not None
        return self.trunk.run_again(self.x if rows is None else self.x[:rows], self.turn)

    def pull(self, gradient: Tensor, *, rows: int | None = None, keep_graph: bool = False) -> Tensor | None:
        """Adds the gradients of <activation, gradient> to those of the layers.

        With kept graphs they are those at the weights that the batch was forwarded with, otherwise at the present ones.

        Args:
            gradient: [N, *shapes.output], or [rows, *shapes.output].
            rows: The activation is that of the first so many rows alone, run again; None: of all.
            keep_graph: Whether the same graph is wanted once more.

        Returns:
            The gradient of the input, like it or its first `rows`; None where nobody wants it.
        """
        if self.weights is not None:
            return self._pull_on_copies(gradient, self.weights, keep_graph)
        h = self.replay(rows)
        with without_autocast(h.device):
            h.backward(gradient.to(h.dtype), retain_graph=keep_graph)
        taken = self.take_input_gradient()
        return taken if taken is None or rows is None else taken[:rows]

    def take_input_gradient(self) -> Tensor | None:
        """The gradient that the input has gathered, which is forgotten; None where nobody wants it."""
        x = self.x
        gradient, x.grad = x.grad, None
        return gradient

    def _pull_on_copies(self, gradient: Tensor, weights: dict[str, Tensor], keep_graph: bool) -> Tensor | None:
        assert self.trunk is not None
        wants_input = self.x.requires_grad
        sources = [*weights.values(), *([self.x] if wants_input else [])]
        with without_autocast(self.h.device):
            found: Any = torch.autograd.grad(
                self.h, sources, gradient.to(self.h.dtype), retain_graph=keep_graph, allow_unused=True
            )
        for parameter, one in zip(self.trunk.module.parameters(), found[: len(weights)], strict=True):
            add_gradient(parameter, one)
        taken: Tensor | None = found[-1] if wants_input else None
        return taken


def add_gradient(parameter: Tensor, gradient: Tensor | None) -> None:
    """Adds to `parameter.grad` as autograd does; None adds nothing."""
    if gradient is not None:
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


@dataclass(eq=False)
class Turn:
    """A block's handling of one batch.

    Attributes:
        number: Turns of the block before this one.
        fresh: The batch whose activation the block has just computed; None in the turns behind the end of the stream.
        old: The batch that `feedback` is about: `fresh` itself where feedback comes without delay; None where there is none.
        feedback: What the next block has sent; empty where nothing has come. Gradients are those of the loss averaged over
            the whole batch.
        back: Filled by the method: what goes to the block before, by the names of its `sends`; empty: nothing goes.
    """

    number: int
    fresh: Sample | None
    old: Sample | None = None
    feedback: Mapping[str, Tensor] = field(default_factory=dict)
    back: dict[str, Tensor] = field(default_factory=dict)

    def backward(self, loss: Tensor, *, about: Sample | None = None, keep_graph: bool = False) -> None:
        """Adds the gradients of a 0-dim loss averaged over the rows of a batch; outside of autocast, as torch advises.

        Args:
            about: That batch; None: the fresh one.
            keep_graph: Whether the same graph is wanted once more.
        """
        sample = about or self.fresh
        assert sample is not None, "a loss of no batch"
        with without_autocast(loss.device):
            sample.as_part(loss).backward(retain_graph=keep_graph)
