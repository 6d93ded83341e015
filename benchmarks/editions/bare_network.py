"""A network without batch normalisation, whose gradients are the same, but for rounding, however a batch is shared out."""

from torch import nn


def build(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Four layers for images [C, H, W] of even height and width."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(16 * (height // 2) * (width // 2), num_classes)),
    )
