"""A late chained gradient on top of a fresh local one (a method of greedypipe's own).

    layers, in one step: gradient of the own loss at t, and weight * gradient that has come about batch b = t - lag
    to the block before: gradient of the input by both, about batch b

The local gradient is never delayed, which is what delayed-gradient methods lose by; what comes late is that of all blocks
behind, whose weight falls by `weight` at each of them. At weight 0 every bit is DGL's; at delay 0 it is a chain of mixtures.

Travels back: the gradient of each block's input, of `rows` of a batch. Cost: a second backward of the layers and, at present
weights, a second forward, both of `rows` of a batch; kept of `lag` batches are inputs and their local gradients or, with
stashed weights, also graphs and weights.
"""

from functools import partial
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from greedypipe.pipeline.ends import GRADIENT, EndsWithInputGradient, SendsInputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.kept import GRAPH, INPUT
from greedypipe.pipeline.method import Method, MethodConfig, Sample, Turn
from greedypipe.pipeline.randomness import SEEDS, derive_seed
from greedypipe.pipeline.site import Site

OWN = "own input gradient"


class LateChain(EndsWithInputGradient):
    """A fresh local gradient and the late one of all blocks behind."""

    class Config(MethodConfig):
        """Fresh local gradient, and the late chained one of all later blocks on top (greedypipe's own)."""

        name: Literal["late_chain"] = "late_chain"
        weight: float = Field(0.5, ge=0, description="factor of the gradient that the next block sends")
        weights: Literal["present", "stashed"] = Field(
            "present",
            description="weights that a late gradient is pulled through: the present ones, by a second forward, or those of "
            "the batch's own forward, kept with its graph",
        )
        rows: float = Field(1.0, gt=0, le=1, description="fraction of a batch's rows that late gradients are sent of")
        lost: float = Field(
            0.0,
            ge=0,
            le=1,
            description="fraction of batches whose late gradient a block drops when it comes, drawn by training.seed: what "
            "an unreliable link costs; the block then sends its own gradient alone",
        )

        @model_validator(mode="after")
        def _graphs_are_of_whole_batches(self) -> Self:
            if self.rows < 1 and self.weights == "stashed":
                raise ValueError(f"method.rows: got {self.rows:g} with method.weights=stashed, allowed: weights=present")
            return self

    reach = Reach.LAST
    relays = input_gradient = True

    def __init__(self, site: Site, weight: float, weights: str, rows: float, lost: float) -> None:
        super().__init__(site)
        self._weight, self._lost = weight, lost
        self._draw = partial(derive_seed, site.seed, "lost feedback", site.index)
        self.keeps = frozenset({GRAPH if weights == "stashed" else INPUT})

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsSomeInputGradients(site, keys["rows"])

    @classmethod
    def unshared(cls, is_last: bool, **keys: Any) -> str:
        return (
            "" if keys["rows"] == 1 else "with method.rows below 1 some of them would have no rows that gradients come for"
        )

    def learn(self, turn: Turn) -> Tensor | None:
        loss = self._learn_own(turn, turn.fresh) if turn.fresh else None
        if turn.old and turn.feedback:
            self._learn_late(turn, turn.old, turn.feedback[GRADIENT])
        return loss

    def _learn_own(self, turn: Turn, fresh: Sample) -> Tensor:
        leaf = fresh.h.detach().requires_grad_()
        loss = self.task.loss(self.head(leaf), fresh.labels)
        turn.backward(loss)
        assert leaf.grad is not None
        own = fresh.pull(leaf.grad, keep_graph=fresh.weights is not None or fresh is turn.old)
        if own is not None:
            fresh.kept[OWN] = own
        return loss.detach()

    def _learn_late(self, turn: Turn, old: Sample, gradient: Tensor) -> None:
        rows = len(gradient)
        own = old.kept.get(OWN)
        mixed = None if own is None else some_rows(own, rows)
        if self._weight and not self.is_lost(old):
            late = old.pull(self._weight * gradient, rows=None if rows == len(old.labels) else rows)
            mixed = mixed if late is None or mixed is None else mixed + late
        if mixed is not None:
            turn.back[GRADIENT] = mixed

    def is_lost(self, old: Sample) -> bool:
        """Whether the block drops what the next one sends about a batch; the same in every process."""
        return self._draw(old.turn) < self._lost * SEEDS


class SendsSomeInputGradients(SendsInputGradient):
    """The last block: sends the gradient of its input, of some rows of the batch."""

    def __init__(self, site: Site, rows: float) -> None:
        super().__init__(site)
        self._rows = rows

    def learn(self, turn: Turn) -> Tensor:
        loss = super().learn(turn)
        if GRADIENT in turn.back:
            gradient = turn.back[GRADIENT]
            turn.back[GRADIENT] = some_rows(gradient, max(1, round(len(gradient) * self._rows)))
        return loss


def some_rows(gradient: Tensor, rows: int) -> Tensor:
    """The first rows of a gradient of a mean over all rows, as that of the mean over these alone."""
    return gradient if rows == len(gradient) else gradient[:rows] * (len(gradient) / rows)
