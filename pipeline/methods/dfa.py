"""Direct feedback alignment (Nokland, *Direct Feedback Alignment Provides Learning in Deep Neural Networks*, 1609.01596).

    backward(replay(x_b), error_b @ matrix)        b = t - lag, error = gradient of the last block's outputs

The matrix is fixed and random, uniform in [-1, 1) / sqrt(features), the prefix of one that all blocks share. With several
layers in a block these back-propagate among themselves; one layer per block is the published rule.

Travels back: [N, classes], passed on by every block. Cost: one forward more than back-propagation, the matrix (classes x
features) and the inputs of `lag` batches. The head is a probe. Not for deep convolutional networks.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from greedypipe.pipeline.ends import OUTPUTS, EndsWithOutputGradient
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.kept import INPUT
from greedypipe.pipeline.method import MethodConfig, Turn
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.site import Site


class DirectFeedback(EndsWithOutputGradient):
    """The last block's error through a fixed random matrix."""

    class Config(MethodConfig):
        """Direct feedback alignment: the last error through fixed random matrices (Nokland 2016)."""

        name: Literal["dfa"] = "dfa"

    reach = Reach.LAST
    relays = drains = True
    fresh_graph = False
    keeps = frozenset({INPUT})

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._shape = site.shapes.output
        self.matrix: Tensor
        # The seed gives it again, so checkpoints do without it.
        self.register_buffer("matrix", feedback_matrix(site), persistent=False)

    def probe(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def learn(self, turn: Turn) -> Tensor | None:
        if turn.old and turn.feedback:
            error = turn.back[OUTPUTS] = turn.feedback[OUTPUTS]
            with without_autocast(error.device):
                gradient = error @ self.matrix
            turn.old.pull(gradient.reshape(-1, *self._shape))
        return self.learn_probe(turn.fresh) if turn.fresh else None


def feedback_matrix(site: Site) -> Tensor:
    """The fixed matrix [classes, features] of a block. Its columns are drawn first to last, so that a smaller block has the
    first ones of a larger block's, up to the scale."""
    features = math.prod(site.shapes.output)
    generator = torch.Generator().manual_seed(derive_seed(site.seed, "feedback"))
    columns = torch.rand(features, site.task.outputs, generator=generator) * 2 - 1
    return columns.t().contiguous() / math.sqrt(features)
