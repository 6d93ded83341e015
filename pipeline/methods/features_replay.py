"""Features replay (Huo, Gu & Huang, *Training Neural Networks Using Features Replay*, NeurIPS 2018, 1807.04511).

Every block learns from the gradient of the network's loss, which the blocks behind it send; it is about a batch of `lag`
turns ago, whose activation is computed again at the present weights:

    backward(replay(x_b), gradient_b)        b = t - lag

Travels back: the gradient of each block's input. Cost: one forward more than back-propagation, and the inputs of `lag`
batches. Running statistics of batch normalisation are those of fresh batches alone (the published code updates them twice).
The head is a probe.
"""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from greedypipe.pipeline.ends import GRADIENT, EndsWithInputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.kept import INPUT
from greedypipe.pipeline.method import MethodConfig, Turn


class FeaturesReplay(EndsWithInputGradient):
    """The delayed gradient of the network's loss, at the present weights."""

    class Config(MethodConfig):
        """Features replay: delayed gradients of the network's loss, at present weights (Huo et al. 2018)."""

        name: Literal["features_replay"] = "features_replay"

    reach = Reach.LAST
    relays = drains = input_gradient = True
    fresh_graph = False
    keeps = frozenset({INPUT})

    def probe(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        if turn.old and turn.feedback:
            gradient = turn.old.pull(self.weighted(turn.feedback[GRADIENT]))
            if gradient is not None:
                turn.back[GRADIENT] = gradient
        return self.learn_probe(turn.fresh) if turn.fresh else None

    def weighted(self, gradient: Tensor) -> Tensor:
        """What the layers follow, of the gradient that has come."""
        return gradient
