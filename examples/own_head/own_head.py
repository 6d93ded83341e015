"""A head of your own, which config.yaml names: from a block's activation to logits."""

from torch import nn

from greedypipe import Site


def conv_head(site: Site, width: int = 64) -> nn.Module:
    """Maps [N, C, H, W] to logits [N, classes]: one convolution, batch normalisation, and the mean over all positions."""
    channels, _, _ = site.shapes.output
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, site.task.outputs),
    )
