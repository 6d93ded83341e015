"""The two smallest networks: three convolutions, and a multi-layer perceptron."""

import math

from greedypipe.pipeline.networks.layer import Network
from greedypipe.pipeline.networks.units import Activation, linear_classifier, linear_layer, plan_layers

FC_FEATURES = 256


def build_basic_cnn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: float,
    dropout: float,
    activation: Activation,
) -> Network:
    """Builds the BasicCNN of AlonNT/Thesis: three 5x5 convolutions of 128 channels, pooled by 2, and an FC.

    It resembles the network that Belilovsky et al. (ICML 2020) compare with DNI, which pools by 3. Its layers
    are ``conv1``, ``pool1``, ..., ``pool3``, ``fc1``. `width` leaves ``fc1`` alone; pools without room are
    omitted (see `plan_layers`).
    """
    layers, shape = plan_layers(
        "128 M 128 M 128 M", input_shape, kernel_size=5, width=width, dropout=dropout, activation=activation
    )
    fc1 = linear_layer("fc1", math.prod(shape), FC_FEATURES, batch_norm=False, dropout=dropout, activation=activation)
    return Network((*layers, fc1), linear_classifier(FC_FEATURES, num_classes, dropout=dropout))


def build_mlp(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    depth: int,
    hidden: int,
    dropout: float,
    activation: Activation,
) -> Network:
    """Builds `depth` fully connected layers ``fc1``, ... of `hidden` features with batch normalisation.

    ``fc1`` flattens the image, [C, H, W]. Dropout stands at the start of each layer but the first, and of the
    classifier.
    """
    features = [math.prod(input_shape), *[hidden] * depth]
    layers = tuple(
        linear_layer(
            f"fc{index + 1}",
            features[index],
            features[index + 1],
            batch_norm=True,
            dropout=dropout if index else 0.0,
            activation=activation,
        )
        for index in range(depth)
    )
    return Network(layers, linear_classifier(hidden, num_classes, dropout=dropout))
