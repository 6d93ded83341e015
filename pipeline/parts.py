"""What one of several replicas has of every batch, and how that becomes the whole batch again."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor, nn


class Part(NamedTuple):
    """A range of the rows of every batch, as shares of all of them: what one replica has, or one link carries."""

    begin: Fraction = Fraction(0)
    end: Fraction = Fraction(1)

    @property
    def share(self) -> Fraction:
        """Its length, as a share of a batch."""
        return self.end - self.begin

    def rows(self, batch_rows: int, begin: Fraction = Fraction(0)) -> slice:
        """Its rows of a batch of so many, counted from where the share `begin` lies; adjacent parts neither overlap nor
        leave gaps, and some may be empty."""
        first = math.floor(batch_rows * begin)
        return slice(math.floor(batch_rows * self.begin) - first, math.floor(batch_rows * self.end) - first)

    def of(self, tensor: Tensor) -> Tensor:
        """Its rows of a tensor with those of a whole batch: a copy, or the tensor itself where they are all."""
        return tensor if self == WHOLE else tensor[self.rows(len(tensor))].clone()


WHOLE = Part()
Join = Callable[[Tensor, int], Tensor]
"""Makes the tensor of a whole batch, of so many rows, of that of a replica's rows."""


def as_it_is(tensor: Tensor, batch_rows: int) -> Tensor:
    """The tensor itself: without replicas it is that of the whole batch."""
    return tensor


Combine = Callable[[Sequence[nn.Parameter]], None]
"""Turns the gradients of parameters by some rows of a batch into those by all of them."""


def keep_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """No-op: without replicas a block sees all rows of a batch."""
