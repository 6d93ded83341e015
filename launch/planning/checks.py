"""Checks that involve two sections of a configuration, or a section and the data or the number of processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import RunConfig, sharing_problems
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.codecs import objection
from greedypipe.pipeline.partition import AUTO
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.links.place import CUDA, has_expandable_segments, launches_block
from greedypipe.workers.placement import Placement

T = TypeVar("T")


class Problems:
    """Collects all errors, one line each, so that the user sees them at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def attempt(self, make: Callable[..., T], *arguments: object) -> T | None:
        """The result of `make`; None if it raises ValueError, whose text is then added to the problems."""
        try:
            return make(*arguments)
        except ValueError as error:
            self._lines.append(str(error))
            return None

    def add(self, lines: Iterable[str]) -> None:
        self._lines += lines

    def refuse(self) -> None:
        """Raises ConfigError with all lines, if there are any."""
        if self._lines:
            raise ConfigError(self._lines)


def placement_problems(config: RunConfig, data: DataInfo | None, placement: Placement) -> Iterator[str]:
    """Everything that is wrong with a number of stages and replicas, a line each.

    Args:
        data: None if unknown, which skips the checks against it.
    """
    if max(placement.replicas) > 1:
        yield from _replica_problems(config, data, placement)
    for key in ("slow_stage", "fault_stage"):
        if getattr(config.debug, key) >= placement.num_stages:
            yield f"debug.{key}: got {getattr(config.debug, key)}, allowed: below {placement.num_stages} stages"


def _replica_problems(config: RunConfig, data: DataInfo | None, placement: Placement) -> Iterator[str]:
    """Reasons why the replicas of a stage could not share every batch."""
    for problem in sharing_problems(placement.replicas, config.buffers, config.data):
        yield f"placement.replicas: {problem}"
    last, most = data.train_samples % config.data.batch_size if data else 0, max(placement.replicas)
    if not config.data.drop_last and 0 < last < 2 * most:
        yield (
            f"placement.replicas: got {most}, but the last batch of an epoch has {last} samples, too few to share; use "
            "data.drop_last=true"
        )


def isolation_problems(config: RunConfig, device: torch.device) -> Iterator[str]:
    """Reasons why a stage could not be started again alone."""
    if config.faults.policy == "isolate" and device.type != "cpu":
        yield f"faults.policy: got isolate on {device.type}, allowed: stages on CPUs"


def bits_problems(config: RunConfig, device: torch.device) -> Iterator[str]:
    """Reasons why it makes no difference how repeatable a run is on devices of this type."""
    if config.training.deterministic and device.type == "cpu":
        yield "training.deterministic: got true with stages on CPUs, allowed: false: they repeat their bits as they are"


def link_problems(config: RunConfig, device: torch.device) -> Iterator[str]:
    """Reasons why the wanted transport could connect no stages at all on devices of this type.

    Args:
        device: Of one of the stages; all are of the same type.
    """
    transport, is_on_gpu = config.link.transport, device.type == CUDA
    if transport in ("nccl", "ipc") and not is_on_gpu:
        yield f"link.transport: got {transport}, allowed with stages on the CPU: auto, shm, gloo"
    if transport == "shm" and is_on_gpu:
        yield "link.transport: got shm, allowed with stages on GPUs: auto, nccl, ipc, gloo"
    if transport == "nccl" and launches_block():
        yield "link.transport: got nccl with CUDA_LAUNCH_BLOCKING set, with which it waits for ever; unset it or use gloo"
    if transport == "ipc" and has_expandable_segments():
        yield "link.transport: got ipc with expandable_segments in PYTORCH_CUDA_ALLOC_CONF, whose memory cannot be shared"


def method_problems(config: RunConfig, blueprint: Blueprint, placement: Placement | None) -> Iterator[str]:
    """What the method cannot be combined with."""
    for stage, count in enumerate(placement.replicas if placement else ()):
        assert placement
        reason = next(filter(None, map(blueprint.unshared, placement.blocks_of(stage))), "")
        if count > 1 and reason:
            yield f"placement.replicas: got {count} with method.name={config.method.name}, allowed: 1: {reason}"
            break
    if blueprint.has_feedback:
        yield from _feedback_problems(config, blueprint)


def _feedback_problems(config: RunConfig, blueprint: Blueprint) -> Iterator[str]:
    method = config.method.name
    if config.buffers.policy == "replay" and blueprint.answers_batches:
        yield (
            f"method.name: got {method} with buffers.policy=replay, allowed: fifo: its feedback answers every batch once, "
            "and replay drops and repeats batches"
        )
    elif config.buffers.policy == "replay" and config.faults.policy == "isolate":
        yield (
            f"faults.policy: got isolate with method.name={method} and buffers.policy=replay, allowed: restart: feedback "
            "for a stage that is away has nowhere to go"
        )
    if config.training.compile != "none" and blueprint.keeps_batches:
        yield f"training.compile: got {config.training.compile} with method.name={method}, allowed: none: it keeps batches"


def codec_problems(config: RunConfig, blueprint: Blueprint, placement: Placement | None) -> Iterator[str]:
    """What the codec of outputs cannot be combined with."""
    codec = config.codec
    if codec.name != "none" and placement and (most := max(placement.replicas)) > 1:
        yield f"placement.replicas: got {most} with codec.name={codec.name}, allowed: 1: each would learn its own codebook"
    for index in range(blueprint.num_blocks - 1):
        if reason := objection(codec, blueprint.shapes[index].output):
            yield f"codec.name: got {codec.name}, allowed: none: block {index}: {reason}"


def schedule_problems(config: RunConfig, blueprint: Blueprint) -> Iterator[str]:
    """What blocks that train one after another cannot be combined with."""
    if config.training.schedule != "one_by_one":
        return
    got = "training.schedule: got one_by_one with"
    if blueprint.has_feedback:
        yield f"{got} method.name={config.method.name}, allowed: together: feedback needs blocks that train at the same time"
    if config.buffers.policy == "replay":
        yield f"{got} buffers.policy=replay, allowed: fifo: the batches of the stream decide which block trains"
    if config.partition.boundaries == AUTO:
        yield (
            f"{got} partition.boundaries=auto, allowed: together, or named boundaries: the planner balances stages that "
            "train at the same time"
        )


def length_problems(config: RunConfig, steps_per_epoch: int) -> Iterator[str]:
    """Settings that do not fit into the run's length."""
    batches, accumulated = config.training.epochs * steps_per_epoch, config.optimizer.accumulate_batches
    total, warmup = batches // accumulated, config.optimizer.warmup(steps_per_epoch)
    if not total:
        yield f"optimizer.accumulate_batches: got {accumulated}, allowed: at most the run's {batches} batches"
    elif warmup >= total:
        key = "warmup_steps" if config.optimizer.warmup_steps else "warmup_epochs"
        yield (
            f"optimizer.{key}: got {getattr(config.optimizer, key)}, allowed: below the run's {total} steps "
            f"({config.training.epochs} epochs of {steps_per_epoch})"
        )
