"""A network with its initial weights, before it is cut."""

import copy
from dataclasses import dataclass
from functools import partial

import torch

from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.layer import Network
from greedypipe.pipeline.networks.patches import build_in_patches
from greedypipe.pipeline.networks.random_backward import randomise
from greedypipe.pipeline.networks.shapes import activation_shapes
from greedypipe.pipeline.plugins import blamed
from greedypipe.pipeline.randomness import derive_seed


@dataclass(frozen=True)
class DrawnNetwork:
    """Layers with their weights, and the shapes between them.

    Attributes:
        network: Layers and classifier; blocks train these very modules.
        shapes: Shape of a sample, then of every layer's output, without the batch dimension.
    """

    network: Network
    shapes: tuple[tuple[int, ...], ...]

    def copy(self) -> "DrawnNetwork":
        """A network with the same weights in modules of its own; draws no random number."""
        return DrawnNetwork(copy.deepcopy(self.network), self.shapes)


def draw_network(model: ModelConfig, input_shape: tuple[int, ...], num_classes: int, seed: int) -> DrawnNetwork:
    """Draws the initial weights of all layers in one stream, derived from the run's `seed`; reseeds torch's generator.

    Raises:
        ValueError: The network is impossible, or does not accept such samples.
    """
    torch.manual_seed(derive_seed(seed, "network"))
    build = partial(build_in_patches, model) if model.patches else model.build
    network = build(input_shape, num_classes)
    layers = (*network.layers, network.classifier)
    with blamed(model):
        # Through the classifier as well: lazy layers get their weights here.
        *shapes, _ = activation_shapes(layers, input_shape)
    if model.backward == "random":
        randomise(layers, seed)
    return DrawnNetwork(network, (input_shape, *shapes))
