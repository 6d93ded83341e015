"""What travels with a batch: the description of a tensor, and what a block receives besides its input."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

LABELS, IMAGE, ACTIVATION = "labels", "image", "activation"
ROTATION, COLOURS, MASK = "rotation", "colours", "mask"
"""Extras of pretext tasks: quarter turns of every row, the image before it was made grey, and what of every image is blotted
out."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, its shape without the batch dimension, its dtype and its memory layout.

    `per_row=False`: it has one row, whatever the batch has.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool = False
    per_row: bool = True

    def rows_of(self, rows: int) -> int:
        """Its rows in a batch of so many."""
        return rows if self.per_row else 1

    @property
    def channels(self) -> int:
        """Length of the channel dimension: the first of maps [C, H, W], the last of tokens [T, C] and vectors [C]."""
        return 1 if not self.shape else self.shape[0] if len(self.shape) == 3 else self.shape[-1]


def made_up(spec: TensorSpec, rows: int, device: torch.device) -> Tensor:
    """Ones in the place of a tensor, to try out or to measure what reads it."""
    return torch.ones(rows, *spec.shape, dtype=spec.dtype, device=device)


@dataclass(frozen=True, eq=False)
class Batch:
    """What a block receives besides its input.

    Attributes:
        batch_id: Number of the batch in the stream of stage 0.
        labels: Targets of the task, [N, ...].
        extras: Further tensors by name, each [N, ...]; at least those that the block's method needs.
        batch_rows: Rows of the whole batch, where other replicas have the remaining ones; 0: these are all.
    """

    batch_id: int
    labels: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    batch_rows: int = 0
