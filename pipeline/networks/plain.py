"""The two smallest networks: three convolutions, and a multi-layer perceptron."""

import math
from typing import Literal

from pydantic import Field

from greedypipe.pipeline.networks.layer import Network
from greedypipe.pipeline.networks.units import (
    ConvolutionalConfig,
    UnitsConfig,
    linear_classifier,
    linear_layer,
    plan_layers,
)

FC_FEATURES = 256


class BasicCnnConfig(ConvolutionalConfig):
    """Three 5x5 convolutions of 128 channels, each pooled by 2, and a fully connected layer (AlonNT/Thesis).

    It resembles the network that Belilovsky et al. (ICML 2020) compare with DNI, which pools by 3. Its layers
    are ``conv1``, ``pool1``, ..., ``pool3``, ``fc1``. `width` does not scale ``fc1``; pools whose input is too small
    are omitted (see `plan_layers`).
    """

    name: Literal["basic_cnn"] = "basic_cnn"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        layers, shape = plan_layers(
            "128 M 128 M 128 M",
            self.space_shape(input_shape),
            kernel_size=5,
            width=self.width,
            dropout=self.dropout,
            activation=self.activation,
            padding=self.padding,
        )
        fc1 = linear_layer(
            "fc1", math.prod(shape), FC_FEATURES, batch_norm=False, dropout=self.dropout, activation=self.activation
        )
        return Network((*layers, fc1), linear_classifier(FC_FEATURES, num_classes, dropout=self.dropout))


class MlpConfig(UnitsConfig):
    """A multi-layer perceptron with batch normalisation.

    Its layers are ``fc1``, ...; ``fc1`` flattens the sample: an image [C, H, W], a signal [C, T] or a vector. Dropout is
    applied at the start of each layer but the first, and of the classifier.
    """

    name: Literal["mlp"] = "mlp"
    depth: int = Field(4, ge=1, description="number of hidden layers")
    hidden: int = Field(256, ge=1, description="features of each hidden layer")

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        features = [math.prod(input_shape), *[self.hidden] * self.depth]
        layers = tuple(
            linear_layer(
                f"fc{index + 1}",
                features[index],
                features[index + 1],
                batch_norm=True,
                dropout=self.dropout if index else 0.0,
                activation=self.activation,
            )
            for index in range(self.depth)
        )
        return Network(layers, linear_classifier(self.hidden, num_classes, dropout=self.dropout))
