"""Which stage is which process, on which device, and hosts which blocks: the only arithmetic on ranks."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, Field


class PlacementConfig(BaseModel, frozen=True, extra="forbid"):
    """Where stages run."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    threads: int = Field(
        1, ge=1, description="CPU threads of a process; the same for any number of processes, so that results are equal"
    )


@dataclass(frozen=True)
class Placement:
    """`num_blocks` blocks dealt in order to `num_stages` stages, one process each: rank r is stage r.

    Raises:
        ValueError: More stages than blocks.
    """

    num_stages: int
    num_blocks: int

    def __post_init__(self) -> None:
        if self.num_stages > self.num_blocks:
            raise ValueError(
                f"{self.num_stages} processes for {self.num_blocks} blocks: a stage hosts at least one block; "
                f"start at most {self.num_blocks} processes (--nproc_per_node) or raise partition.blocks"
            )

    def blocks_of(self, stage: int) -> range:
        """Indices of the blocks that a stage hosts; where they do not go up evenly, later stages host one more."""
        return range(stage * self.num_blocks // self.num_stages, (stage + 1) * self.num_blocks // self.num_stages)

    def stage_of(self, rank: int) -> int:
        """The stage of a process."""
        return rank

    def device_of(self, local_rank: int, config: PlacementConfig) -> torch.device:
        """The device of a process; the GPUs of a host are dealt to its processes in turn.

        Raises:
            ValueError: CUDA is asked for and not there.
        """
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("placement.device: got 'cuda', but torch sees no GPU here; use cpu or auto")
        if config.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", local_rank % torch.cuda.device_count())
