"""Maps ranks to stages, replicas, devices and blocks: the only arithmetic on ranks."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, Field

from greedypipe.pipeline.parts import WHOLE, Part


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


class PlacementConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Devices, threads and replicas of stages."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one, else the CPU")
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of each process; results depend on them, not on the number of processes"
    )
    replicas: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_list)] = Field(
        (1,),
        description="processes that share the batches of a stage (data parallel): one number for all stages, or one per "
        "stage, e.g. [1, 2, 1]",
    )


def stage_name(label: object) -> str:
    """Name of a stage, or of a replica, in sentences and as the peer of a waiting process.

    Args:
        label: The stage's number, or `Seat.label`.
    """
    return f"stage {label}"


@dataclass(frozen=True)
class Seat:
    """The role of a process in a run: replica number `replica` of the `replicas` of its stage."""

    rank: int
    stage: int
    replica: int = 0
    replicas: int = 1

    @property
    def label(self) -> str:
        """Short name for tables: "2", or "2.0" for the first of several replicas."""
        return f"{self.stage}.{self.replica}" if self.replicas > 1 else f"{self.stage}"

    @property
    def name(self) -> str:
        """Name in sentences; workers.telemetry.diagnosis looks peers up by it."""
        return stage_name(self.label)

    @property
    def leads_stage(self) -> bool:
        """Whether this is the replica that saves the stage's blocks."""
        return self.replica == 0

    @property
    def part(self) -> Part:
        """What this process has of every batch."""
        return part_of(self.replica, self.replicas)


def part_of(replica: int, replicas: int) -> Part:
    """What one of several replicas has of every batch."""
    return Part(Fraction(replica, replicas), Fraction(replica + 1, replicas)) if replicas > 1 else WHOLE


@dataclass(frozen=True)
class Route:
    """A path from one process to one of a neighbouring stage, for a part of every batch."""

    sender: Seat
    receiver: Seat
    part: Part

    @property
    def back(self) -> "Route":
        """The way of feedback about the same rows, from the receiver to the sender."""
        return Route(self.receiver, self.sender, self.part)


@dataclass(frozen=True)
class Placement:
    """Assigns blocks to stages and stages to processes, in order: ranks count the replicas of stage 0 first.

    Every replica of a stage takes an equal part of the rows of every batch, the first replica the first rows. So a batch is
    one step of every block however many replicas there are, and its samples keep their order.

    Args:
        replicas: Number of processes of each stage.

    Raises:
        ValueError: More stages than blocks.
    """

    replicas: tuple[int, ...]
    num_blocks: int

    def __post_init__(self) -> None:
        if self.num_stages > self.num_blocks:
            raise ValueError(
                f"{self.num_stages} stages for {self.num_blocks} blocks: a stage hosts at least one block; start at most "
                f"{self.num_blocks} processes (--nproc_per_node), raise partition.blocks, or give a stage more of them "
                "(placement.replicas; launch/plan.py shows which one)"
            )

    @classmethod
    def deal(cls, replicas: tuple[int, ...], num_processes: int, num_blocks: int) -> "Placement":
        """Places `num_processes` processes according to `placement.replicas`.

        Raises:
            ValueError: The numbers of processes do not match, or there are more stages than blocks.
        """
        if len(replicas) == 1:
            stages, rest = divmod(num_processes, replicas[0])
            if rest:
                raise ValueError(
                    f"placement.replicas: got {replicas[0]}, allowed: a divisor of the number of processes, {num_processes}"
                )
            return cls(replicas * stages, num_blocks)
        if sum(replicas) != num_processes:
            raise ValueError(
                f"placement.replicas: got {list(replicas)}, which is {sum(replicas)} processes, but {num_processes} were "
                "started (--nproc_per_node)"
            )
        return cls(replicas, num_blocks)

    @property
    def num_stages(self) -> int:
        return len(self.replicas)

    @property
    def num_processes(self) -> int:
        return sum(self.replicas)

    def blocks_of(self, stage: int) -> range:
        """Indices of the blocks that a stage hosts; if they do not divide evenly, later stages host one more."""
        return range(stage * self.num_blocks // self.num_stages, (stage + 1) * self.num_blocks // self.num_stages)

    def seat_of(self, rank: int) -> Seat:
        """The seat of a process."""
        return list(self.seats())[rank]

    def seats(self) -> Iterator[Seat]:
        """The seats of all processes, in the order of ranks."""
        places = [(stage, replica, count) for stage, count in enumerate(self.replicas) for replica in range(count)]
        return (Seat(rank, *place) for rank, place in enumerate(places))

    def replicas_of(self, stage: int) -> list[Seat]:
        """The seats of a stage's processes."""
        return [seat for seat in self.seats() if seat.stage == stage]

    def routes_after(self, stage: int) -> list[Route]:
        """All routes from a stage to the next one: between replicas whose rows overlap."""
        routes = []
        for sender, receiver in itertools.product(self.replicas_of(stage), self.replicas_of(stage + 1)):
            ours, theirs = sender.part, receiver.part
            common = Part(max(ours.begin, theirs.begin), min(ours.end, theirs.end))
            if common.begin < common.end:
                routes.append(Route(sender, receiver, common))
        return routes

    def routes_before(self, stage: int, *, have_rows: bool) -> list[Route]:
        """All routes of feedback from a stage to the one before.

        Args:
            have_rows: Whether feedback has rows, which go back the way that they came. Otherwise all replicas have the
                same, and each receiver takes all of it from one of them.
        """
        routes = [route.back for route in self.routes_after(stage - 1)]
        if have_rows:
            return routes
        first: dict[Seat, Route] = {}
        for route in routes:
            first.setdefault(route.receiver, replace(route, part=route.sender.part))
        return list(first.values())

    @staticmethod
    def device_of(local_rank: int, config: PlacementConfig) -> torch.device:
        """The device of a process; the GPUs of a host are assigned to its processes in turn.

        They are counted without the driver (by NVML, where torch finds it): this process may still fork, and a child of one
        that has started CUDA could not.

        Raises:
            ValueError: CUDA is requested but not available.
        """
        if config.device == "cpu":
            return torch.device("cpu")
        gpus = torch.cuda.device_count()
        if config.device == "cuda" and not gpus:
            raise ValueError("placement.device: got 'cuda', but torch sees no GPU here; use cpu or auto")
        return torch.device("cuda", local_rank % gpus) if gpus else torch.device("cpu")
