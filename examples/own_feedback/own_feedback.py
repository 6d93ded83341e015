"""A method of your own with feedback, which config.yaml names: each head also learns from what the next block thinks."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from greedypipe import Back, Method, Reach, Site, Turn


class LearnsFromNext(Method):
    """Cross-entropy on the fresh batch; about an earlier one, the head follows the outputs of the next block.

    layers and head: cross_entropy(head(h_t), labels_t)        head alone: weight * KL(next block's p_b, p of head(h_b))
    """

    reach = Reach.NEXT
    keeps = frozenset({"output"})

    def __init__(self, site: Site, weight: float = 0.5) -> None:
        super().__init__(site)
        self._weight = weight

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        """The last block sends as the others do. Nothing comes to it, so it learns by cross-entropy alone."""
        return cls(site, **keys)

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        """What travels to the block before: a row of outputs per sample, in fp32."""
        return (Back("outputs", (site.task.outputs,), torch.float32),)

    def learn(self, turn: Turn) -> Tensor:
        """One turn: gradients are gathered here, and the block makes the step."""
        assert turn.fresh is not None  # it would be, if the class said `drains = True`
        outputs = self.head(turn.fresh.h)
        loss = self.task.loss(outputs, turn.fresh.labels)
        turn.backward(loss)
        turn.back["outputs"] = outputs.detach().float()
        if turn.old and turn.feedback:
            own = functional.log_softmax(self.head(turn.old.h.detach()).float(), 1)
            theirs = functional.softmax(turn.feedback["outputs"], 1)
            turn.backward(self._weight * functional.kl_div(own, theirs, reduction="batchmean"), about=turn.old)
        return loss.detach()
