"""Local critics (Lee, Kim & Lee, *Local Critic Training of Deep Neural Networks*, IJCNN 2019, 1805.01128).

The head of a block is a critic that learns to foretell the loss of the next block, sample by sample; the layers follow the
critic's own loss and the critic never does:

    layers: d loss(head(h_t)) / dh           critic: | loss(head(h_b)) - loss_of_next_block_b |, b = t - delay

Travels back: one number per sample. Cost: forward and backward of the head twice, and the activations of `delay` batches.
The published weight decay is differentiated through the critic, which is an error: it is the optimizer's here.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from greedypipe.pipeline.ends import LOSSES, SendsLosses
from greedypipe.pipeline.feedback import Back, Reach
from greedypipe.pipeline.kept import OUTPUT
from greedypipe.pipeline.method import Method, MethodConfig, Sample, Turn
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.site import Site


class LocalCritic(Method):
    """Layers follow a critic, the critic follows the next block's loss."""

    class Config(MethodConfig):
        """Local critics: each head learns to predict the next block's loss (Lee et al. 2019)."""

        name: Literal["local_critic"] = "local_critic"

    reach = Reach.NEXT
    keeps = frozenset({OUTPUT})

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsLosses(site)

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        return (Back(LOSSES, (), torch.float32),)

    def auxiliary(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        loss = self._follow(turn, turn.fresh) if turn.fresh else None
        if turn.old and turn.feedback:
            own = self._losses(turn.old.h.detach(), turn.old)
            turn.backward((own - turn.feedback[LOSSES]).abs().mean())
        return loss

    def _follow(self, turn: Turn, fresh: Sample) -> Tensor:
        """The layers follow the critic; its losses go to the block before."""
        leaf = fresh.h.detach().requires_grad_()
        losses = self._losses(leaf, fresh)
        loss = losses.mean()
        with without_autocast(leaf.device):
            (gradient,) = torch.autograd.grad(loss, leaf)
            # Without delay the next line's `old` is this batch, whose graph nobody needs: its activation is detached.
            fresh.h.backward(gradient)
        turn.back[LOSSES] = losses.detach()
        return loss.detach()

    def _losses(self, h: Tensor, sample: Sample) -> Tensor:
        return self.task.loss(self.head(h), sample.labels, reduction="none")
