"""VGG networks for small images.

``vgg8b`` and ``vgg11b`` are those of Nokland & Eidnes, "Training Neural Networks with Local Error Signals"
(ICML 2019); ``vgg11c`` is that of AlonNT/Thesis, which ends at 4x4 for 32x32 images; ``vgg11`` to ``vgg19``
are the plans A, B, D and E of Simonyan & Zisserman (ICLR 2015), with batch normalisation and without hidden
fully connected layers.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from greedypipe.pipeline.networks.layer import Network
from greedypipe.pipeline.networks.units import ConvolutionalConfig, linear_classifier, linear_layer, plan_layers


class _Vgg(NamedTuple):
    plan: str
    fc_features: int = 0  # of the fully connected layer before the classifier; 0: no such layer
    fc_batch_norm: bool = False


VGGS: Mapping[str, _Vgg] = MappingProxyType(
    {
        "vgg8b": _Vgg("128 256 M 256 512 M 512 M 512 M", 1024, True),
        "vgg11b": _Vgg("128 128 128 256 M 256 512 M 512 512 M 512 M", 1024, True),
        "vgg11c": _Vgg("64 128 M 256 256 M 512 512 512 512 M", 1024),
        "vgg11": _Vgg("64 M 128 M 256 256 M 512 512 M 512 512 M"),
        "vgg13": _Vgg("64 64 M 128 128 M 256 256 M 512 512 M 512 512 M"),
        "vgg16": _Vgg("64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"),
        "vgg19": _Vgg("64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"),
    }
)


class VggConfig(ConvolutionalConfig):
    """VGG networks: the local-loss variants vgg8b, vgg11b and vgg11c, and the classic vgg11 to vgg19; of images or signals.

    Layers are ``conv1`` (with normalisation and activation), ``pool1``, ..., ``fc1``. Pools whose input is too small are
    omitted (see `plan_layers`); only vgg8b, vgg11b and vgg11c have ``fc1``. `width` does not scale it, as in the wide
    networks of Nokland & Eidnes.
    """

    name: Literal["vgg8b", "vgg11b", "vgg11c", "vgg11", "vgg13", "vgg16", "vgg19"] = "vgg8b"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        vgg = VGGS[self.name]
        layers, shape = plan_layers(
            vgg.plan,
            self.space_shape(input_shape),
            kernel_size=3,
            width=self.width,
            dropout=self.dropout,
            activation=self.activation,
            padding=self.padding,
        )
        features = math.prod(shape)
        if vgg.fc_features:
            layers.append(
                linear_layer(
                    "fc1",
                    features,
                    vgg.fc_features,
                    batch_norm=vgg.fc_batch_norm,
                    dropout=self.dropout,
                    activation=self.activation,
                )
            )
            features = vgg.fc_features
        return Network(tuple(layers), linear_classifier(features, num_classes, dropout=self.dropout))
