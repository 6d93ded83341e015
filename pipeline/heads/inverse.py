"""The inverse of target propagation: from a block's activation back to its input."""

import math

from torch import nn

from greedypipe.pipeline.site import Shapes


def build_inverse(shapes: Shapes) -> nn.Module:
    """Activation [N, *shapes.output] -> input [N, *shapes.input].

    Maps are up-sampled to the input's size by repetition and pass through one 3 x 3 convolution; vectors and tokens pass
    through one linear layer.
    """
    if len(shapes.output) == len(shapes.input) == 3:
        grow = [nn.Upsample(size=shapes.input[1:])] if shapes.output[1:] != shapes.input[1:] else []
        return nn.Sequential(*grow, nn.Conv2d(shapes.output[0], shapes.input[0], 3, padding=1), nn.ReLU())
    linear = nn.Linear(math.prod(shapes.output), math.prod(shapes.input))
    return nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, shapes.input))
