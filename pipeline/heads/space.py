"""Maps [C, H, W] and signals [C, T] as heads see them: the same layers in two dimensions and in one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from greedypipe.pipeline.site import Site


@dataclass(frozen=True)
class Space:
    """Layers for activations that have channels first and then these many dimensions of space.

    Attributes:
        dimensions: 2 of maps, 1 of signals.
        channels: Of the activation.
        size: Rows of the map, or length of the signal.
        norm: Builds a batch normalisation of so many channels.
        max_pool: Builds a pool of 2 by the maximum.
    """

    dimensions: int
    channels: int
    size: int
    norm: Callable[[int], nn.Module]
    max_pool: Callable[[int], nn.Module]
    _pool: Any
    _convolution: Any
    _pool_to: Any
    _is_square: bool = True

    def average_pool(self, window: int) -> nn.Module:
        """A pool of so many positions in every dimension by the mean."""
        built: nn.Module = self._pool(window)
        return built

    def conv(self, before: int, after: int, kernel: int, *, stride: int = 1, bias: bool = False) -> nn.Module:
        """A convolution that keeps the size, up to its stride."""
        built: nn.Module = self._convolution(before, after, kernel, stride, padding=kernel // 2, bias=bias)
        return built

    def conv_norm_relu(self, before: int, after: int, kernel: int, *, stride: int = 1) -> nn.Module:
        """Such a convolution without bias, batch normalisation and ReLU."""
        return nn.Sequential(self.conv(before, after, kernel, stride=stride), self.norm(after), nn.ReLU())

    def pool_to(self, size: int, rows: int | None = None) -> nn.Module:
        """Averages down to `size` positions in every dimension, from `rows`; None: the activation's.

        Where the windows are alike, and a fixed pool has the bits of an adaptive one, it is a fixed one, whose backward
        pass a GPU repeats. Adaptive ones remain for windows of different sizes, and squares whose side is no power of two,
        whose mean is rounded otherwise; `pipeline.pools` has a GPU compute those by other operations. A mean over all is
        repeatable as it is.
        """
        window, rest = divmod(rows or self.size, size)
        is_exact = self.dimensions == 1 or (self._is_square and window.bit_count() == 1)
        built: nn.Module = self._pool(window) if size > 1 and not rest and is_exact else self._pool_to(size)
        return built

    def positions(self, size: int) -> int:
        """Positions of an activation of so many rows."""
        return int(size**self.dimensions)

    def flat(self, channels: int, size: int) -> tuple[list[nn.Module], int]:
        """What turns channels of so many rows into a vector, pooled to two positions in every dimension at most; and its
        length."""
        # The papers pool to 2 x 2; a 1 x 1 map pooled "up" to that would only repeat every feature four times.
        pooled = min(2, size)
        return [self.pool_to(pooled, size), nn.Flatten()], channels * self.positions(pooled)


def has_space(site: Site) -> bool:
    """Whether the activation is a map or a signal, and neither tokens nor a vector."""
    return len(site.shapes.output) == 3 or site.is_signal


def space_of(site: Site) -> Space:
    """The space of the activation at `site`, which is a map or a signal."""
    channels, size, *columns = site.shapes.output
    if len(site.shapes.output) == 2:
        return Space(1, channels, size, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.Conv1d, nn.AdaptiveAvgPool1d)
    return Space(
        2,
        channels,
        size,
        nn.BatchNorm2d,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.Conv2d,
        nn.AdaptiveAvgPool2d,
        _is_square=columns == [size],
    )
