"""Networks as people write them in their first hour."""

from torch import Tensor, nn

Shape = tuple[int, int, int]


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x.flatten(1))


def batch_norm(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 32), nn.Linear(32, num_classes)
    )


def lazy(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(16), nn.LazyLinear(num_classes))


def softmax(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, num_classes), nn.Softmax(1))


def no_arguments() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def not_sequential(input_shape: Shape, num_classes: int) -> nn.Module:
    return Plain()


def wrong_classes(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 7))


def wrong_shape(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(65, 32), nn.ReLU(), nn.Linear(32, num_classes))


def two_outputs(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), Two(), nn.Linear(32, num_classes))


def raises(input_shape: Shape, num_classes: int) -> nn.Module:
    raise RuntimeError("my own\nbug")
