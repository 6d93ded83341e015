"""A network of your own, which config.yaml names."""

from collections import OrderedDict

from torch import nn


def small(input_shape: tuple[int, int, int], num_classes: int, width: int = 64) -> nn.Sequential:
    """From images [N, *input_shape] to logits [N, num_classes].

    Each child is a layer under its own name, where a block may begin; the last one is the classifier.
    """

    def convolution(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())

    return nn.Sequential(
        OrderedDict(
            first=convolution(input_shape[0], width // 2),
            second=convolution(width // 2, width),
            third=convolution(width, width),
            classifier=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)),
        )
    )
