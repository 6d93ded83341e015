"""Overlapping blocks (Laskin et al., *Parallel Training of Deep Networks with Local Updates*, 2012.03837, section 4.2).

    layers: gradient of the own loss at t, and weight * gradient of the next block's own loss about batch b = t - delay

The own loss is any local one, such as cross-entropy or similarity matching. What goes down is the gradient of that alone, so
it reaches exactly one block further. At weight 0 every bit is that of the local loss; at delay 0 a block follows the sum of
both losses exactly.

Travels back: the gradient of each block's input. Cost: with delay one more forward and backward of the layers, and the
inputs of `delay` batches.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from torch import Tensor, nn

from greedypipe.pipeline.ends import GRADIENT, EndsWithInputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.kept import INPUT
from greedypipe.pipeline.method import MethodConfig, Sample, TaskLoss, Turn
from greedypipe.pipeline.methods.local_losses import LOCAL_FAMILY, build_local_loss, keys_of, local_class
from greedypipe.pipeline.site import Site


class Overlap(EndsWithInputGradient):
    """The own loss and that of the next block."""

    class Config(MethodConfig):
        """Overlapping blocks: the own loss and that of the next block (Laskin et al. 2020)."""

        name: Literal["overlap"] = "overlap"
        weight: float = Field(1.0, ge=0, description="factor of the next block's loss")
        local: Annotated[MethodConfig, LOCAL_FAMILY] = Field(
            {"name": "cross_entropy"},
            validate_default=True,
            description="a block's own loss with its keys: a method that needs nothing back and trains the layers, or your "
            "own",
        )
        first_block: bool = Field(True, description="whether block 0 has a loss of its own; false: the next one's alone")

        @property
        def innermost(self) -> BaseModel:
            return self.local

    reach = Reach.NEXT
    input_gradient = True
    keeps = frozenset({INPUT})

    def __init__(self, site: Site, weight: float, local: MethodConfig, first_block: bool) -> None:
        nn.Module.__init__(self)  # the own loss has the head
        self.task = site.task
        self._weight = weight
        self._has_own_loss = first_block or site.index > 0
        self.local = build_local_loss(local, site) if self._has_own_loss else TaskLoss(site)
        self.drains = not self._has_own_loss
        self.fresh_graph = self._has_own_loss

    @classmethod
    def needed(cls, **keys: Any) -> frozenset[str]:
        return cls.needs | local_class(keys["local"]).needed(**keys_of(keys["local"]))

    @classmethod
    def wanted_views(cls, **keys: Any) -> int:
        return local_class(keys["local"]).wanted_views(**keys_of(keys["local"]))

    @classmethod
    def check(cls, site: Site, **keys: Any) -> None:
        local_class(keys["local"]).check(site, **keys_of(keys["local"]))

    @classmethod
    def unshared(cls, is_last: bool, **keys: Any) -> str:
        return local_class(keys["local"]).unshared(is_last, **keys_of(keys["local"]))

    @classmethod
    def looks_inside(cls, **keys: Any) -> bool:
        return local_class(keys["local"]).looks_inside(**keys_of(keys["local"]))

    def taps(self) -> Sequence[nn.Module]:
        return self.local.taps() if self._has_own_loss else ()

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        return self.local.head

    def auxiliary(self) -> Iterable[nn.Parameter]:
        return self.local.auxiliary()

    def probe(self) -> Iterable[nn.Parameter]:
        return self.local.probe() if self._has_own_loss else self.head.parameters()

    def frozen(self) -> Iterable[nn.Parameter]:
        return self.local.frozen()

    def learn(self, turn: Turn) -> Tensor | None:
        loss = self._learn_own(turn, turn.fresh) if turn.fresh else None
        if turn.old and turn.feedback and self._weight:
            gradient = turn.feedback[GRADIENT]
            turn.old.pull(gradient if self._weight == 1 else self._weight * gradient)
        return loss

    def _learn_own(self, turn: Turn, fresh: Sample) -> Tensor:
        if not self._has_own_loss:
            return self.learn_probe(fresh)
        loss: Tensor = self.local(fresh)
        turn.backward(loss, keep_graph=fresh is turn.old and self._weight > 0)
        if (gradient := fresh.take_input_gradient()) is not None:
            turn.back[GRADIENT] = gradient
        return loss.detach()
