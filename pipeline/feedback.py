"""What travels back between neighbouring blocks, and the age at which it is read.

From block k + 1 to block k runs a line: a queue that starts with `delay` empty entries. In every turn block k + 1 puts one
entry in, which may be empty, and block k takes one out. So in turn t block k reads what block k + 1 put in at turn
t - delay, whoever hosts the two.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, BeforeValidator, Field
from torch import Tensor

from greedypipe.pipeline.parts import WHOLE, Join, Part, as_it_is

Feedback = Mapping[str, Tensor]
"""What a block reads in one turn, tensors by name; empty: nothing has come."""


@dataclass(frozen=True, eq=False)
class Entry(Feedback):
    """One entry of a line, as a block has put it in; empty: nothing is to go.

    Attributes:
        batch_rows: Rows of the whole batch that it is about, where other replicas have the rest of the rows; 0: it has all,
            or none, as parameters have.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    batch_rows: int = 0

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def state_dict(self, join: Join = as_it_is) -> dict[str, Tensor]:
        """The entry about the whole batch, as a file holds it."""
        return {name: join(tensor, self.batch_rows) for name, tensor in self.tensors.items()}

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], part: Part = WHOLE) -> "Entry":
        """What one replica sends of the entry that a file holds."""
        if part == WHOLE:
            return cls(state)
        batch_rows = max((len(tensor) for tensor in state.values()), default=0)
        return cls({name: part.of(tensor) for name, tensor in state.items()}, batch_rows)


NOTHING = Entry()


class Learned(NamedTuple):
    """What comes out of one turn of a block.

    Attributes:
        loss: The local loss before the update, 0-dim fp32, detached, on the block's device; None where there is none.
        back: What goes to the block before, by name; empty: nothing.
    """

    loss: Tensor | None
    back: Entry


class Reach(StrEnum):
    """What the entry is about that block k + 1 puts on its line in turn t."""

    NONE = "none"
    """Nothing is put on any line."""
    NEXT = "next"
    """Batch t: the next block's own result."""
    LAST = "last"
    """The batch that block k + 1 has just read about: results of the last block, passed from block to block."""


@dataclass(frozen=True)
class Back:
    """A tensor that travels to the block before. Gradients are those of the loss averaged over the whole batch.

    Attributes:
        shape: Without the first dimension, which counts the rows of the batch, or is 1 where `per_row` is False.
        dtype: None: that of activations.
        per_row: Whether it has a row for each sample; parameters do not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    per_row: bool = True


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


class FeedbackConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What blocks send back to the block before; methods without feedback ignore it."""

    delay: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_as_list)] = Field(
        (1,),
        description="turns that feedback spends between two blocks: one number, or one per boundary, e.g. [2, 2, 1]; 0: a "
        "block waits for the next one before every step, as in back-propagation",
    )

    def delays(self, num_blocks: int) -> tuple[int, ...]:
        """One delay per boundary.

        Raises:
            ValueError: There are neither one nor as many delays as boundaries.
        """
        if len(self.delay) == 1:
            return self.delay * (num_blocks - 1)
        if len(self.delay) != num_blocks - 1:
            raise ValueError(
                f"feedback.delay: got {len(self.delay)} numbers, allowed: one number, or one for each of the "
                f"{num_blocks - 1} boundaries of {num_blocks} blocks"
            )
        return self.delay


@dataclass(frozen=True)
class Timing:
    """When one block reads and sends feedback.

    Attributes:
        reads: Whether it takes an entry from the line behind it in every turn.
        sends: Whether it puts an entry on the line before it in every turn.
        delay: Empty entries that the line behind it starts with.
        delay_before: Empty entries that the line before it starts with.
        lag: Age of the batch that the entry it reads is about, in turns.
        passes_on: Whether the entry it puts in is about that batch too; otherwise about the fresh one.
    """

    reads: bool = False
    sends: bool = False
    delay: int = 0
    delay_before: int = 0
    lag: int = 0
    passes_on: bool = False


WITHOUT_FEEDBACK = Timing()
DEFAULT_FEEDBACK = FeedbackConfig()


def timing_of(index: int, reach: Reach, delays: tuple[int, ...]) -> Timing:
    """The timing of block `index` of `len(delays) + 1`."""
    if reach is Reach.NONE:
        return WITHOUT_FEEDBACK
    is_last = index == len(delays)
    delay = 0 if is_last else delays[index]
    return Timing(
        reads=not is_last,
        sends=index > 0,
        delay=delay,
        delay_before=delays[index - 1] if index else 0,
        lag=delay if reach is Reach.NEXT else sum(delays[index:]),
        passes_on=reach is Reach.LAST and not is_last,
    )
