"""Overlapping blocks through weights: the next block's loss by a copy of that block (a variant of greedypipe's own).

    loss(head(h_t)) + weight * loss(copied_head(copied_layers(h_t)))

In the place of an old gradient of the next block (`overlap`), the parameters of its layers and head come back every `every`
turns; both losses are about the fresh batch. Nothing is kept and nothing is run again. At weight 0 every bit is DGL's; at
delay 0 and every turn it is `overlap` but for the order of sums.

Travels back: all parameters of each block. Cost: forward and input gradient of the next block and its head, and a copy of
both.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.feedback import Back, Reach
from greedypipe.pipeline.method import Method, MethodConfig, TaskLoss, Turn
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.site import Site

PARAMETERS = "parameters"


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
        self._sent = AllParameters(site, self.head, every)

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsAllParameters(site, keys["every"])

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        with torch.device("meta"):
            head = site.make_head(site)
        return (Back(PARAMETERS, (AllParameters(site, head).size,), torch.float32, per_row=False),)

    def frozen(self) -> Iterable[nn.Parameter]:
        return self.copy.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        assert turn.fresh is not None
        self._sent.put_into(turn)
        if turn.feedback:
            _load(list(self.copy.parameters()), turn.feedback[PARAMETERS][0])
        h, labels = turn.fresh.h, turn.fresh.labels
        loss = self.task.loss(self.head(h), labels)
        turn.backward(loss + self._weight * self.task.loss(self.copy(h), labels) if self._weight else loss)
        return loss.detach()


class AllParameters:
    """The parameters of a block's layers and head, as they go to the block before every `every` turns."""

    def __init__(self, site: Site, head: nn.Module, every: int = 1) -> None:
        modules = (*(layer.module for layer in site.layers), head)
        self._parameters = tuple(parameter for module in modules for parameter in module.parameters())
        self._every = every
        self.size = sum(parameter.numel() for parameter in self._parameters)

    def put_into(self, turn: Turn) -> None:
        """Puts a copy of them into what goes back in this turn, if one is due."""
        if turn.number % self._every == 0:
            turn.back[PARAMETERS] = torch.cat([one.detach().reshape(-1) for one in self._parameters])[None]


class SendsAllParameters(TaskLoss):
    """The last block: sends the parameters of its layers and of the classifier."""

    def __init__(self, site: Site, every: int) -> None:
        super().__init__(site)
        self._sent = AllParameters(site, self.head, every)

    def learn(self, turn: Turn) -> Tensor:
        self._sent.put_into(turn)
        return super().learn(turn)


def copied_block(site: Site) -> nn.Sequential:
    """Copies of the layers of the block at `site` and of its head, with the initial weights of both, as one module that no
    optimizer trains; leaves torch's generator as it is."""
    layers = [copy.deepcopy(layer.module) for layer in site.layers]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(site.seed, "head", site.index))
        head = copy.deepcopy(site.make_head(site))
    return nn.Sequential(*layers, head).requires_grad_(False)


@torch.no_grad()
def _load(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
