"""Networks as sequences of layers that may be cut anywhere."""

from greedypipe.pipeline.networks.build import NETWORK_NAMES, ModelConfig, build_network
from greedypipe.pipeline.networks.layer import Layer, Network
from greedypipe.pipeline.networks.shapes import activation_shapes

__all__ = ["NETWORK_NAMES", "Layer", "ModelConfig", "Network", "activation_shapes", "build_network"]
