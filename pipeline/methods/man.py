"""Momentum auxiliary network (Su et al., ECCV 2024, 2407.05623): a block sees a moving average of the next one.

    head of block k: head(bias(h) + average(h))

`average` follows the first layer of the next block, average <- m^n * average + (1 - m^n) * layer, every n = `every` turns;
`bias` is a trainable copy of that layer, as in the published code. Both begin as the next block's first layer begins.

Travels back: the parameters of each block's first layer, every `every` turns. Cost: two forwards and one backward and a half
of that layer. In our own trials the average alone is worth nothing (docs/methods.md).
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.ends import SendsParameters, SentParameters, parts_for
from greedypipe.pipeline.feedback import Back, Feedback, Reach
from greedypipe.pipeline.method import Method, MethodConfig, Turn
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.networks.shapes import activation_shapes
from greedypipe.pipeline.site import Shapes, Site


class MomentumAuxiliary(Method):
    """DGL through a copy and a moving average of the next block's first layer."""

    class Config(MethodConfig):
        """MAN: heads behind a moving average of the next block's first layer (Su et al. 2024)."""

        name: Literal["man"] = "man"
        momentum: float = Field(0.995, ge=0, le=1, description="share of the average that stays in a turn")
        every: int = Field(1, ge=1, description="turns between two parameters that are sent")

    reach = Reach.NEXT
    is_scaled = False
    """Whether a trainable scalar weighs the copy against the average."""

    head: "LooksAhead"

    def __init__(self, site: Site, momentum: float, every: int) -> None:
        super().__init__(_site_behind_next_layer(site))
        self.head = LooksAhead(_first(site.following.layers), self.head, is_scaled=self.is_scaled)
        self._sent = SentParameters([_first(site.layers)], every)
        self._kept_share = momentum**every

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsParameters(site, SentParameters([_first(site.layers)], keys["every"]))

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        return SentParameters([_first(site.layers)]).back()

    def frozen(self) -> Iterable[nn.Parameter]:
        return self.head.average.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        assert turn.fresh is not None
        self._sent.put_into(turn)
        loss = self.task.loss(self.head(turn.fresh.h), turn.fresh.labels)
        turn.backward(loss)
        if turn.feedback:
            self._follow(turn.feedback)
        return loss.detach()

    @torch.no_grad()
    def _follow(self, feedback: Feedback) -> None:
        for parameter, part in parts_for(list(self.head.average.parameters()), feedback):
            parameter.mul_(self._kept_share).add_(part, alpha=1 - self._kept_share)


class LooksAhead(nn.Module):
    """A head behind a trainable copy of the next layer plus a moving average of that layer."""

    def __init__(self, next_layer: nn.Module, head: nn.Module, *, is_scaled: bool) -> None:
        super().__init__()
        self.bias = copy.deepcopy(next_layer)
        self.average = copy.deepcopy(next_layer).requires_grad_(False)
        self.head = head
        self.scale = nn.Parameter(torch.ones(())) if is_scaled else None

    def forward(self, h: Tensor) -> Tensor:
        bias, average = self.bias(h), self.average(h)
        mixed = bias + average if self.scale is None else self.scale * bias + (2 - self.scale) * average
        outputs: Tensor = self.head(mixed)
        return outputs


def _first(layers: tuple[Layer, ...]) -> nn.Sequential:
    """The first layer that has parameters, behind those that stand before it, such as a pool."""
    count = next((number for number, layer in enumerate(layers, 1) if layer.has_parameters), len(layers))
    return nn.Sequential(*(layer.module for layer in layers[:count]))


def _site_behind_next_layer(site: Site) -> Site:
    layers = site.following.layers
    shape = activation_shapes(layers[: len(_first(layers))], site.shapes.output)[-1]
    return replace(site, shapes=Shapes(site.shapes.input, shape))
