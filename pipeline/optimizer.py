"""The optimizer and learning-rate schedule of one block; both are torch's."""

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field
from torch import nn, optim
from torch.optim import lr_scheduler


class OptimizerConfig(BaseModel, frozen=True, extra="forbid"):
    """Optimizer and schedule, one of each per block; epochs are counted in the block's own steps."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="update rule")
    lr: float = Field(0.1, gt=0, description="learning rate at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only", json_schema_extra={"only_with": {"name": "sgd"}})
    nesterov: bool = Field(
        False, description="sgd only: Nesterov's momentum", json_schema_extra={"only_with": {"name": "sgd"}}
    )
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty (adamw: decoupled)")
    clip_norm: float = Field(0.0, ge=0, description="largest norm of one block's gradient, head included; 0: no clipping")
    schedule: Literal["constant", "step", "multistep", "cosine"] = Field(
        "constant", description="how the learning rate falls; cosine: to 0 over the run"
    )
    step_epochs: int = Field(
        15,
        ge=1,
        description="schedule=step: epochs between decays",
        json_schema_extra={"only_with": {"schedule": "step"}},
    )
    milestones: tuple[int, ...] = Field(
        (),
        description="schedule=multistep: epochs after which the rate decays, e.g. [150, 225]",
        json_schema_extra={"only_with": {"schedule": "multistep"}},
    )
    gamma: float = Field(
        0.2,
        gt=0,
        le=1,
        description="schedule=step, multistep: factor of a decay",
        json_schema_extra={"only_with": {"schedule": ("step", "multistep")}},
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from lr/100")


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Builds the fused form, one kernel for all parameters, on CPU as on CUDA."""
    if config.name == "sgd":
        return optim.SGD(
            parameters,
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
    rule = optim.Adam if config.name == "adam" else optim.AdamW
    return rule(parameters, config.lr, weight_decay=config.weight_decay, fused=True)


def build_schedule(
    config: OptimizerConfig, optimizer: optim.Optimizer, steps_per_epoch: int, total_steps: int
) -> lr_scheduler.LRScheduler:
    """Builds the schedule; it is advanced once per step and, unlike in the published DGL code, keeps the momentum."""
    warmup = config.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return _decay(config, step, steps_per_epoch, total_steps) * (0.01 + 0.99 * step / warmup)
        return _decay(config, step, steps_per_epoch, total_steps)

    return lr_scheduler.LambdaLR(optimizer, factor)


def _decay(config: OptimizerConfig, step: int, steps_per_epoch: int, total_steps: int) -> float:
    match config.schedule:
        case "step":
            return config.gamma ** (step // (config.step_epochs * steps_per_epoch))
        case "multistep":
            return config.gamma ** sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
        case "cosine":
            progress = max(0, step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
            return (1 + math.cos(math.pi * progress)) / 2
        case _:
            return 1.0
