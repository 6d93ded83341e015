"""Overlapping blocks through weights: the next block's loss by a copy of that block (a variant of greedypipe's own).

    loss(head(h_t)) + weight * loss(copied_head(copied_layers(h_t)))

In the place of an old gradient of the next block (`overlap`), the parameters of its layers and head come back every `every`
turns; both losses are about the fresh batch. Nothing is kept and nothing is run again. At weight 0 every bit is DGL's; at
delay 0 and every turn it is `overlap` but for the order of sums.

Travels back: all parameters of each block. Cost: forward and input gradient of the next block and its head, and a copy of
both.
"""

import copy
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.ends import SendsParameters, SentParameters, parts_for
from greedypipe.pipeline.feedback import Back, Reach
from greedypipe.pipeline.method import Method, MethodConfig, Turn
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.site import Site


class OverlapThroughWeights(Method):
    """The own loss and that of the next block, by a copy of it."""

    class Config(MethodConfig):
        """Overlapping blocks through copies of the next block's weights (greedypipe's own)."""

        name: Literal["overlap_weights"] = "overlap_weights"
        weight: float = Field(1.0, ge=0, description="factor of the next block's loss")
        every: int = Field(1, ge=1, description="turns between two sets of parameters that are sent")

    reach = Reach.NEXT

    def __init__(self, site: Site, weight: float, every: int) -> None:
        super().__init__(site)
        self.copy = copied_block(site.following)
        self._weight = weight
        self._sent = _sent_of(site, self.head, every)

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsParameters(site, _sent_of(site, site.make_head(site), keys["every"]))

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        with torch.device("meta"):
            head = site.make_head(site)
        return _sent_of(site, head).back()

    def frozen(self) -> Iterable[nn.Parameter]:
        return self.copy.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        assert turn.fresh is not None
        self._sent.put_into(turn)
        if turn.feedback:
            with torch.no_grad():
                for parameter, part in parts_for(list(self.copy.parameters()), turn.feedback):
                    parameter.copy_(part)
        h, labels = turn.fresh.h, turn.fresh.labels
        loss = self.task.loss(self.head(h), labels)
        turn.backward(loss + self._weight * self.task.loss(self.copy(h), labels) if self._weight else loss)
        return loss.detach()


def _sent_of(site: Site, head: nn.Module, every: int = 1) -> SentParameters:
    """Of a block's layers and head."""
    return SentParameters((*(layer.module for layer in site.layers), head), every)


def copied_block(site: Site) -> nn.Sequential:
    """Copies of the layers of the block at `site` and of its head, with the initial weights of both, as one module that no
    optimizer trains; leaves torch's generator as it is."""
    layers = [copy.deepcopy(layer.module) for layer in site.layers]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(site.seed, "head", site.index))
        head = copy.deepcopy(site.make_head(site))
    return nn.Sequential(*layers, head).requires_grad_(False)
