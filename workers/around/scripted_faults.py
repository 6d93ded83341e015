"""Deliberate trouble: a slowed stage and scripted faults, to see how a pipeline copes."""

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from torch import Tensor

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.feedback import NOTHING, Feedback, Learned
from greedypipe.pipeline.no_effect import no_effect
from greedypipe.workers.around.shell import AnyBlock, BlockShell
from greedypipe.workers.devices.current import waiting_for
from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import Message

FULL_BYTES = 64 << 10


class DebugConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Slowed stages and scripted faults, to see how a pipeline copes; all off by default."""

    slow_stage: int = Field(-1, ge=-1, description="stage to slow down; -1: none")
    slow_factor: float = Field(1.0, ge=1, description="factor by which the slowed stage takes longer per batch")
    slow_link_s: float = Field(0.0, ge=0, description="seconds by which every message sent by the slowed stage is delayed")
    fault: Literal["none", "raise", "exit", "stop", "hang", "nan", "full_disk"] = Field(
        "none",
        description="raise an exception; exit silently; stop by SIGSTOP; hang forever; nan: weights become NaN; "
        "full_disk: no file of the process may grow beyond 64 KiB",
    )
    fault_stage: int = Field(0, ge=0, description="stage in which the fault happens")
    fault_step: int = Field(0, ge=0, description="optimizer step of that stage's first block at which it happens")

    @field_validator("slow_factor", "slow_link_s")
    @classmethod
    def _slows_some_stage(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("slow_stage") == -1 and value != cls.model_fields[str(info.field_name)].default:
            raise no_effect(f"got {value!r}, which slows nothing without debug.slow_stage")
        return value


class SlowedBlock(BlockShell):
    """A block that sleeps after each forward and learn in training, `factor` - 1 times as long as that took.

    On a GPU the host waits for both, and sleeps while the GPU has nothing else to do.
    """

    def __init__(self, block: AnyBlock, factor: float) -> None:
        super().__init__(block)
        self._factor = factor
        self._spent_s = 0.0
        self._settle = waiting_for(block.device)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        started = time.perf_counter()
        activation = self._block.forward(x, batch)
        self._settle()
        self._spent_s = time.perf_counter() - started
        return activation

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        started = time.perf_counter()
        learned = self._block.learn(feedback, drains=drains)
        self._settle()
        time.sleep((self._factor - 1) * (self._spent_s + time.perf_counter() - started))
        return learned


class SlowedSender(Sender):
    """A link that delays every message, like a slow line."""

    def __init__(self, link: Sender, delay_s: float) -> None:
        self._link = link
        self._delay_s = delay_s

    @property
    def stats(self) -> LinkStats:
        return self._link.stats

    def send(self, message: Message) -> None:
        time.sleep(self._delay_s)
        self._link.send(message)

    def close(self) -> None:
        self._link.close()

    def abandon(self) -> None:
        self._link.abandon()


class FaultyBlock(BlockShell):
    """A block whose forward fails in the given way at the given step."""

    def __init__(self, block: AnyBlock, fault: str, step: int) -> None:
        super().__init__(block)
        self._fault = fault
        self._step = step

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        if self._block.turn == self._step and not self._block.finished:
            self._strike()
        return self._block.forward(x, batch)

    def _strike(self) -> None:
        print(f"debug: {self._fault} in block {self._block.index} at step {self._step}", file=sys.stderr, flush=True)
        match self._fault:
            case "raise":
                raise RuntimeError(f"scripted fault in block {self._block.index} at step {self._step}")
            case "exit":
                os._exit(17)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hang":
                time.sleep(1e9)
            case "full_disk":
                resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
            case "nan":
                for layer in self._block.layers:
                    for parameter in layer.module.parameters():
                        parameter.data.fill_(float("nan"))


def slowed_link(link: Sender, stage: int, config: DebugConfig) -> Sender:
    """The stage's link to the next one, slowed as `config` asks."""
    return SlowedSender(link, config.slow_link_s) if config.slow_stage == stage and config.slow_link_s else link


def trouble(blocks: Sequence[AnyBlock], stage: int, config: DebugConfig) -> list[AnyBlock]:
    """The stage's blocks, slowed or faulty as `config` asks."""
    result: list[AnyBlock] = list(blocks)
    if config.fault != "none" and config.fault_stage == stage:
        result[0] = FaultyBlock(blocks[0], config.fault, config.fault_step)
    if config.slow_stage == stage and config.slow_factor > 1:
        result = [SlowedBlock(block, config.slow_factor) for block in result]
    return result
