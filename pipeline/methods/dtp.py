"""Difference target propagation (Lee et al., ECML 2015, 1412.7525): blocks are given targets, not gradients.

    layers: |f(x_b) - target_b|^2                                             b = t - lag
    target for the block before: x_b + inverse(target_b) - inverse(f(x_b))
    inverse: |inverse(f(x_t + noise)) - (x_t + noise)|^2
    the last block's target: x - rate * rows * gradient of the mean loss

Travels back: the target of each block's output. Cost: two forwards more than back-propagation and three of the inverse, and
the inputs of `lag` batches. The head is a probe. Weak on convolutional networks, as published.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.feedback import Back, Reach
from greedypipe.pipeline.heads.inverse import build_inverse
from greedypipe.pipeline.kept import INPUT
from greedypipe.pipeline.method import Method, MethodConfig, Sample, TaskLoss, Turn
from greedypipe.pipeline.site import Site

TARGET = "target"


class TargetPropagation(Method):
    """Blocks learn to reach the target that the next block has computed through its inverse."""

    class Config(MethodConfig):
        """Difference target propagation: targets through learned inverses (Lee et al. 2015)."""

        name: Literal["dtp"] = "dtp"
        noise: float = Field(0.1, ge=0, description="standard deviation of the noise that inverses are trained with")
        rate: float = Field(0.1, gt=0, description="step of the last block's target, in gradients of one sample's loss")

    reach = Reach.LAST
    relays = drains = True
    fresh_graph = False
    keeps = frozenset({INPUT})

    def __init__(self, site: Site, noise: float, rate: float) -> None:
        super().__init__(site)
        self.inverse = build_inverse(site.shapes) if site.timing.sends else None
        self._noise = noise

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsTarget(site, keys["rate"])

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        return (Back(TARGET, site.shapes.input),)

    def auxiliary(self) -> Iterable[nn.Parameter]:
        return self.inverse.parameters() if self.inverse else ()

    def probe(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        if turn.fresh and self.inverse:
            self._learn_inverse(turn, turn.fresh, self.inverse)
        if turn.old and turn.feedback:
            self._reach_target(turn, turn.old, turn.feedback[TARGET])
        return self.learn_probe(turn.fresh) if turn.fresh else None

    def _learn_inverse(self, turn: Turn, fresh: Sample, inverse: nn.Module) -> None:
        assert fresh.trunk is not None
        noisy = fresh.x.detach() + self._noise * torch.randn_like(fresh.x)
        with torch.no_grad():
            activation = fresh.trunk.perturbed(noisy)
        turn.backward(_distance(inverse(activation), noisy))

    def _reach_target(self, turn: Turn, old: Sample, target: Tensor) -> None:
        h = old.replay()
        if self.inverse:
            with torch.no_grad():
                turn.back[TARGET] = (old.x.detach() + (self.inverse(target) - self.inverse(h))).to(old.x.dtype)
        turn.backward(_distance(h, target), about=old)


class SendsTarget(TaskLoss):
    """The last block: the target of its input is a step down the gradient of the loss."""

    input_gradient = True

    def __init__(self, site: Site, rate: float) -> None:
        super().__init__(site)
        self._rate = rate

    def learn(self, turn: Turn) -> Tensor:
        assert turn.fresh is not None
        loss = super().learn(turn)
        if (gradient := turn.fresh.take_input_gradient()) is not None:
            rows = turn.fresh.batch_rows or len(turn.fresh.labels)
            turn.back[TARGET] = turn.fresh.x.detach() - self._rate * rows * gradient
        return loss


def _distance(x: Tensor, target: Tensor) -> Tensor:
    """Squared distance, summed over features and averaged over samples, in fp32."""
    return (x.float() - target.float()).square().flatten(1).sum(1).mean()
