"""Which layers form which block."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, model_validator

from greedypipe.pipeline.networks.layer import Layer

AUTO: Final = "auto"


class PartitionConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Where the network is cut into blocks."""

    blocks: int = Field(
        4,
        ge=1,
        description="number of blocks to cut the network into; 1: ordinary back-propagation; follows from named boundaries",
    )
    boundaries: tuple[str, ...] | Literal["auto"] = Field(
        (),
        description="first layer of every block but the first, e.g. [conv3, conv5]; empty: as many layers with weights in "
        "each block; auto: measure layers, then make the slowest stage as fast as possible",
    )
    profile_s: float = Field(
        5.0, gt=0, description="seconds to spend on measuring layers, with boundaries=auto and in launch/plan.py"
    )

    @model_validator(mode="before")
    @classmethod
    def _boundaries_set_blocks(cls, keys: Any) -> Any:
        boundaries = keys.get("boundaries") if isinstance(keys, dict) else None
        if isinstance(boundaries, list | tuple) and boundaries and "blocks" not in keys:
            return keys | {"blocks": len(boundaries) + 1}
        return keys


@dataclass(frozen=True)
class Partition:
    """A cut of `num_layers` layers: block i has the layers starts[i] to starts[i + 1] - 1.

    Raises:
        ValueError: A block would be empty, or a layer would belong to no block.
    """

    starts: tuple[int, ...]
    num_layers: int

    def __post_init__(self) -> None:
        edges = (*self.starts, self.num_layers)
        if self.starts[:1] != (0,) or any(left >= right for left, right in pairwise(edges)):
            raise ValueError(
                f"block starts must begin with 0 and rise, all below {self.num_layers} layers, got {list(self.starts)}"
            )

    @property
    def num_blocks(self) -> int:
        return len(self.starts)

    def ranges(self) -> list[range]:
        """The layer indices of every block, in order; they cover each layer once."""
        return [range(left, right) for left, right in pairwise((*self.starts, self.num_layers))]


def make_partition(config: PartitionConfig, layers: Sequence[Layer]) -> Partition:
    """Cuts at the named boundaries, or evenly if there are none; also evenly for "auto", until layers are measured.

    Raises:
        ValueError: More blocks than weighted layers, or a boundary that is unknown, the first layer, or out of order.
    """
    if config.boundaries and config.boundaries != AUTO:
        return Partition((0, *_positions(config.boundaries, config.blocks, layers)), len(layers))
    return Partition(tuple(even_starts(layers, config.blocks)), len(layers))


def even_starts(layers: Sequence[Layer], blocks: int) -> list[int]:
    """Starts of `blocks` blocks with equal numbers of weighted layers; of uneven ones, earlier blocks get one fewer.

    A layer without parameters (pooling) stays with the layer before it, so that the pooled map is sent, which is four
    times smaller.
    """
    weighted = [index for index, layer in enumerate(layers) if layer.has_parameters]
    if blocks > max(1, len(weighted)):
        raise ValueError(f"partition.blocks: got {blocks}, but the network has {len(weighted)} layers with parameters")
    return [0, *(weighted[block * len(weighted) // blocks] for block in range(1, blocks))]


def _positions(boundaries: tuple[str, ...], blocks: int, layers: Sequence[Layer]) -> list[int]:
    if len(boundaries) != blocks - 1:
        raise ValueError(
            f"partition.boundaries: {blocks} blocks have {blocks - 1} boundaries, "
            f"got {len(boundaries)}: {', '.join(boundaries)}"
        )
    names = [layer.name for layer in layers]
    unknown = [name for name in boundaries if name not in names[1:]]
    if unknown:
        raise ValueError(
            f"partition.boundaries: {', '.join(map(repr, unknown))} cannot begin a block; "
            f"the network's layers after the first are {', '.join(names[1:])}"
        )
    positions = [names.index(name) for name in boundaries]
    if sorted(set(positions)) != positions:
        raise ValueError(f"partition.boundaries must be in the network's order, got {', '.join(boundaries)}")
    return positions
