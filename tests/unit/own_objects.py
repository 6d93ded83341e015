"""What a user may bring along: a network, a head and a method, each with an option of its own."""

from torch import Tensor, nn

from greedypipe.pipeline.method import LocalLoss, Sample
from greedypipe.pipeline.site import Site


def own_network(input_shape: tuple[int, int, int], num_classes: int, hidden: int = 8) -> nn.Sequential:
    first = nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], hidden))
    return nn.Sequential(first, *(nn.Linear(hidden, hidden) for _ in range(3)), nn.Linear(hidden, num_classes))


def own_head(site: Site, bias: bool = True) -> nn.Module:
    return nn.Linear(site.shapes.output[0], site.task.outputs, bias=bias)


class OwnMethod(LocalLoss):
    def __init__(self, site: Site, scale: float = 1.0) -> None:
        super().__init__(site)
        self.scale = scale

    def loss(self, sample: Sample) -> Tensor:
        return self.scale * self.task.loss(self.head(sample.h), sample.labels)


class Embedding(nn.Module):
    """Images [N, 1, 8, 8] to 16 tokens of 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def transformer(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Of images [1, 8, 8]: six layers between which tokens [16, 16] pass."""
    layers = (nn.TransformerEncoderLayer(16, 2, 24, dropout=0.1, batch_first=True) for _ in range(5))
    return nn.Sequential(Embedding(), *layers, nn.Sequential(Mean(), nn.Linear(16, num_classes)))


def of_signals(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Of images read line by line: convolutions in one dimension, between which signals [C, T] pass."""

    def convolution(before: int, after: int, *behind: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(before, after, 3, padding=1), nn.BatchNorm1d(after), nn.ReLU(), *behind)

    return nn.Sequential(
        nn.Sequential(nn.Flatten(2), convolution(1, 8)),
        convolution(8, 8),
        nn.MaxPool1d(2),
        convolution(8, 16),
        nn.MaxPool1d(2),
        convolution(16, 24),
        nn.Sequential(nn.Flatten(), nn.Linear(24 * 16, num_classes)),
    )
