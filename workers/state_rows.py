"""The rows that one replica has of a block's state, as bytes on their way to the replica that saves whole batches."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from greedypipe.pipeline.block import Block
from greedypipe.pipeline.parts import Part


class Rows(NamedTuple):
    """A replica's rows of one tensor of a whole batch."""

    tensor: Tensor
    batch_rows: int

    def shape_of(self, part: Part) -> torch.Size:
        """The shape of what the replica with this part of every batch has of the same tensor."""
        rows = part.rows(self.batch_rows)
        return torch.Size([rows.stop - rows.start, *self.tensor.shape[1:]])

    def size_bytes(self, part: Part) -> int:
        """The bytes of that."""
        return self.shape_of(part).numel() * self.tensor.element_size()


def rows_of(block: Block) -> list[Rows]:
    """All tensors of a block's state that have the rows of a batch, in the order of `Block.state_dict`: references."""
    found: list[Rows] = []

    def note(tensor: Tensor, batch_rows: int) -> Tensor:
        found.append(Rows(tensor, batch_rows))
        return tensor

    block.state_dict(note)
    return found


def packed(rows: Sequence[Rows]) -> Tensor:
    """All of them as one row of bytes."""
    return torch.cat([one.tensor.contiguous().reshape(-1).view(torch.uint8) for one in rows])


def room_for(rows: Sequence[Rows], part: Part) -> Tensor:
    """Where another replica's rows of the same tensors, packed, are received."""
    return torch.empty(sum(one.size_bytes(part) for one in rows), dtype=torch.uint8, device=rows[0].tensor.device)


def unpacked(data: Tensor, rows: Sequence[Rows], part: Part) -> Iterator[Tensor]:
    """Another replica's rows of the same tensors, in their memory layout."""
    pieces = data.split([one.size_bytes(part) for one in rows])
    for one, piece in zip(rows, pieces, strict=True):
        # A piece may begin anywhere, but a number lies at a multiple of its size.
        tensor = piece.clone().view(one.tensor.dtype).view(one.shape_of(part))
        is_last = one.tensor.dim() == 4 and not one.tensor.is_contiguous()
        yield tensor.contiguous(memory_format=torch.channels_last) if is_last else tensor


def joined_state(block: Block, rows: Sequence[Rows], others: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """The state of a block with the rows of all replicas: its own first, then those of the others, in their order."""
    wholes = iter([torch.cat([own.tensor, *pieces]) for own, *pieces in zip(rows, *others, strict=True)])
    return block.state_dict(lambda tensor, batch_rows: next(wholes))
