"""Decoupled neural interfaces (Jaderberg et al., ICML 2017, 1608.05343): blocks follow predicted gradients.

    layers: backward(h_t, synthesiser(h_t))        synthesiser: |synthesiser(h_b) - gradient_b|^2, b = t - delay

The synthesiser learns from the gradient of the next block's input, which that block gets by pulling its own synthetic
gradient through (the last one: the true gradient). It starts at zero, so a block stands still until it has learned.

Travels back: the gradient of each block's input. Cost: the synthesiser forward twice and backward once, and the activations
of `delay` batches. With SGD it does not converge; the published runs use Adam at 3e-5 and lose accuracy behind their peak
(`auxiliary.name=adam`). The head is a probe.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.ends import GRADIENT, EndsWithInputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.heads.synthesiser import Synthesiser
from greedypipe.pipeline.kept import OUTPUT
from greedypipe.pipeline.method import MethodConfig, Sample, Turn
from greedypipe.pipeline.site import Site


class SyntheticGradients(EndsWithInputGradient):
    """Layers follow a synthesiser, the synthesiser follows the next block's gradient."""

    class Config(MethodConfig):
        """DNI: synthetic gradients, from activations alone (Jaderberg et al. 2017)."""

        name: Literal["dni"] = "dni"
        kernel: int = Field(5, ge=1, description="width of the synthesiser's convolutions")

    reach = Reach.NEXT
    input_gradient = True
    keeps = frozenset({OUTPUT})
    sees_labels = False
    """Whether the synthesiser is given the labels."""

    def __init__(self, site: Site, kernel: int) -> None:
        super().__init__(site)
        self.synthesiser = Synthesiser(site.shapes.output, site.task.outputs if self.sees_labels else 0, kernel)

    def auxiliary(self) -> Iterable[nn.Parameter]:
        return self.synthesiser.parameters()

    def probe(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        loss = self._follow(turn, turn.fresh) if turn.fresh else None
        if turn.old and turn.feedback:
            guess = self.synthesiser(turn.old.h.detach(), turn.old.labels).float()
            error = (guess - turn.feedback[GRADIENT].float()).square().sum() / len(guess)
            turn.backward(error, about=turn.old)
        return loss

    def _follow(self, turn: Turn, fresh: Sample) -> Tensor:
        """The layers follow the synthetic gradient; what it is at the input goes to the block before."""
        with torch.no_grad():
            synthetic = self.synthesiser(fresh.h.detach(), fresh.labels)
        gradient = fresh.pull(synthetic)
        if gradient is not None:
            turn.back[GRADIENT] = gradient
        return self.learn_probe(fresh)
