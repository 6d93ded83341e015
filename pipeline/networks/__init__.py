"""Networks as sequences of layers that may be cut anywhere."""

from greedypipe.pipeline.networks.build import MODEL_FAMILY, NETWORK_NAMES
from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.layer import Layer, Network
from greedypipe.pipeline.networks.shapes import activation_shapes

__all__ = ["MODEL_FAMILY", "NETWORK_NAMES", "Layer", "ModelConfig", "Network", "activation_shapes"]
