"""The optimizer and learning-rate schedule of one block; both are torch's."""

import math
from collections.abc import Iterable
from typing import Any, Literal

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


class Optimization:
    """The optimizer of one block with its schedule, step budget and largest gradient norm.

    Args:
        parameters: What is trained, in an order that every process agrees on.
        total_steps: Step budget of the run.
    """

    def __init__(
        self, config: OptimizerConfig, parameters: Iterable[nn.Parameter], steps_per_epoch: int, total_steps: int
    ) -> None:
        self.parameters = list(parameters)
        self.total_steps = total_steps
        self._clip_norm = config.clip_norm
        self._optimizer = build_optimizer(config, self.parameters)
        self._schedule = build_schedule(config, self._optimizer, steps_per_epoch, total_steps)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def advance(self) -> None:
        """Clips the gradients, makes one step, and advances the schedule."""
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self._clip_norm, foreach=True)
        self._optimizer.step()
        self._schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """State of optimizer and schedule; tensors are references."""
        return {"optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; takes its tensors over."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
