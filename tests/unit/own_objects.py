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
