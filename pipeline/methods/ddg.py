"""Decoupled parallel back-propagation with delayed gradients (Huo et al., ICML 2018, 1804.10574).

As features replay, but at the weights that the batch was forwarded with: its graph stands on copies of the parameters, so it
is the exact gradient of the network's loss at the weights that every block used for that batch. The published code keeps
graphs of parameters that change in place, which gives old activations with new weights; that is not reproduced here.

Travels back: the gradient of each block's input. Cost: that of back-propagation, and graphs and weights of `lag` batches.
The head is a probe.
"""

from typing import Literal

from greedypipe.pipeline.kept import GRAPH
from greedypipe.pipeline.method import MethodConfig
from greedypipe.pipeline.methods.features_replay import FeaturesReplay


class DelayedGradients(FeaturesReplay):
    """The delayed gradient of the network's loss, at the weights of the batch's own forward."""

    class Config(MethodConfig):
        """DDG: delayed gradients of the network's loss, at the weights of their forward pass (Huo et al. 2018)."""

        name: Literal["ddg"] = "ddg"

    fresh_graph = True
    keeps = frozenset({GRAPH})
