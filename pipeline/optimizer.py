"""The optimizer and learning-rate schedule of one block; both are torch's, or the optimizer is the user's."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from torch import nn, optim
from torch.optim import lr_scheduler

from greedypipe.pipeline.no_effect import no_effect
from greedypipe.pipeline.options import refusal
from greedypipe.pipeline.own_code import OwnCodeError
from greedypipe.pipeline.plugins import Family, Own

_WEIGHT_DECAY = Field(5e-4, ge=0, description="L2 penalty on the parameters (adamw, nadam: decoupled from the gradient)")

_SCHEDULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"step_epochs": ("step",), "milestones": ("multistep",), "gamma": ("step", "multistep"), "peak": ("one_cycle",)}
)
"""The schedules that use a key."""


class OptimizerConfig(BaseModel, ABC, frozen=True, extra="forbid", defer_build=True):
    """Optimizer and learning-rate schedule of each block; epochs are counted in the block's own batches."""

    takes_tensors: ClassVar[bool] = False
    """Whether the optimizer takes a learning rate that is a tensor, and waits for no device to read it."""

    name: str = Field(description="the update rule")
    lr: float = Field(0.1, gt=0, description="initial learning rate, after any warm-up")
    clip_norm: float = Field(0.0, ge=0, description="largest norm of a block's gradient, head included; 0: no clipping")
    schedule: Literal["constant", "step", "multistep", "cosine", "one_cycle"] = Field(
        "constant",
        description="constant; step: multiply by gamma every step_epochs; multistep: at each of milestones; "
        "cosine: fall to 0 over the run; one_cycle: rise from lr/25 to lr, then fall to lr/250000",
    )
    step_epochs: int = Field(15, ge=1, description="schedule=step: epochs between decays")
    milestones: tuple[int, ...] = Field(
        (), validate_default=True, description="schedule=multistep: epochs after which to decay, e.g. [150, 225]"
    )
    gamma: float = Field(0.2, gt=0, le=1, description="schedule=step or multistep: factor of each decay")
    peak: float = Field(0.3, gt=0, lt=1, description="schedule=one_cycle: share of the run in which the learning rate rises")
    warmup_steps: int = Field(
        0, ge=0, description="steps in which the learning rate first rises linearly from lr/100; 0: none"
    )
    warmup_epochs: float = Field(0, ge=0, le=1e6, description="the same in epochs, in place of warmup_steps")
    accumulate_batches: int = Field(
        1, ge=1, description="batches whose mean gradient makes one step; warm-up counts steps, other schedules epochs"
    )

    def warmup(self, batches_per_epoch: int) -> int:
        """Steps in which the learning rate first rises."""
        return self.warmup_steps or round(self.warmup_epochs * batches_per_epoch / self.accumulate_batches)

    by_block: tuple[dict[Literal["lr", "weight_decay"], Annotated[float, Field(ge=0)]], ...] = Field(
        (),
        description="for each block, the last one included, lr and weight_decay that are other there, e.g. [{lr: 0.05}, {}, "
        "{weight_decay: 0}]; []: the same for all",
    )

    @field_validator("by_block")
    @classmethod
    def _decays_weights(cls, by_block: tuple[dict[str, float], ...]) -> tuple[dict[str, float], ...]:
        if "weight_decay" not in cls.model_fields and any("weight_decay" in one for one in by_block):
            raise ValueError("got weight_decay, allowed: lr: an optimizer of your own takes its weight decay from options")
        return by_block

    def at_block(self, index: int) -> Self:
        """The section of block `index`, without `by_block`; of later blocks than `by_block` has entries, the last one's."""
        own: Mapping[Any, float] = self.by_block[min(index, len(self.by_block) - 1)] if self.by_block else {}
        return self.model_copy(update={**own, "by_block": ()})

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """Builds the optimizer of these parameters."""

    @field_validator(*_SCHEDULES)
    @classmethod
    def _schedule_uses_it(cls, value: Any, info: ValidationInfo) -> Any:
        key, schedule = str(info.field_name), info.data.get("schedule")
        if schedule and schedule not in _SCHEDULES[key] and value != cls.model_fields[key].default:
            needed = " or ".join(_SCHEDULES[key])
            raise no_effect(f"got {value!r}, which has no effect with optimizer.schedule={schedule}; it needs {needed}")
        if key == "milestones" and schedule == "multistep" and not value:
            raise ValueError("got no epochs, but optimizer.schedule=multistep needs some, e.g. [150, 225]")
        return value

    @field_validator("warmup_epochs")
    @classmethod
    def _one_length(cls, value: float, info: ValidationInfo) -> float:
        if value and (steps := info.data.get("warmup_steps")):
            raise ValueError(f"got {value:g} with warmup_steps={steps}, allowed: one of the two")
        return value


class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    takes_tensors = True
    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum; 0: none")
    nesterov: bool = Field(False, description="use Nesterov's momentum")
    weight_decay: float = _WEIGHT_DECAY

    @field_validator("nesterov")
    @classmethod
    def _nesterov_needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise no_effect("got true, which needs optimizer.momentum above 0")
        return nesterov

    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        return optim.SGD(
            parameters,
            self.lr,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )


class NadamConfig(OptimizerConfig):
    """Adam with Nesterov's momentum, which bears late gradients better (Ajanthan et al., ICML 2025)."""

    name: Literal["nadam"] = "nadam"
    weight_decay: float = _WEIGHT_DECAY

    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        return optim.NAdam(parameters, self.lr, weight_decay=self.weight_decay, decoupled_weight_decay=True, foreach=True)


class AdamConfig(OptimizerConfig):
    """Adam, and AdamW, whose weight decay is decoupled from the gradient."""

    takes_tensors = True
    name: Literal["adam", "adamw"] = "adam"
    weight_decay: float = _WEIGHT_DECAY

    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        rule = optim.Adam if self.name == "adam" else optim.AdamW
        return rule(parameters, self.lr, weight_decay=self.weight_decay, fused=True)


class OwnOptimizer(Own, OptimizerConfig):
    """Your own torch.optim.Optimizer, called with a block's parameters, lr and your options."""

    section = "optimizer"
    positional = 1
    keywords = ("lr",)

    @model_validator(mode="after")
    def _steps(self) -> Self:
        """Refuses bad options by the optimizer's own checks, and what cannot make a step without being given a closure."""
        parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        try:
            built: Any = self.build(parameters)
        except OwnCodeError as error:
            raise refusal(self.name, [(("options",), self.options, f"{self.name}: {error.reason}")]) from error
        if not isinstance(built, optim.Optimizer):
            reason = f"{self.name} must be a torch.optim.Optimizer, got {type(built).__name__}"
            raise refusal(self.name, [(("name",), self.name, reason)])
        try:
            with self.blamed():
                built.step()
        except OwnCodeError as error:
            raise refusal(self.name, [(("name",), self.name, f"{self.name}: step(): {error.reason}")]) from error
        return self

    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        optimizer: optim.Optimizer = self.call(list(parameters), lr=self.lr)
        return optimizer


OPTIMIZER_FAMILY = Family[OptimizerConfig](
    "optimizer",
    {"sgd": SgdConfig, "adam": AdamConfig, "adamw": AdamConfig, "nadam": NadamConfig},
    default="sgd",
    own=OwnOptimizer,
)


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Builds the optimizer; torch's own are fused, one kernel for all parameters, on the CPU and on CUDA."""
    return config.build(parameters)


def build_schedule(
    config: OptimizerConfig, optimizer: optim.Optimizer, steps_per_epoch: int, total_steps: int
) -> lr_scheduler.LambdaLR:
    """Builds the schedule; it is advanced once per step and, unlike in the published DGL code, keeps the momentum.

    Args:
        steps_per_epoch: Batches of an epoch, of which `accumulate_batches` make a step.
        total_steps: Batches of the run.
    """
    warmup = config.warmup(steps_per_epoch)
    an_epoch, all_of_them = Fraction(steps_per_epoch, config.accumulate_batches), total_steps // config.accumulate_batches

    def factor(step: int) -> float:
        decayed = _decay(config, step, an_epoch, all_of_them, warmup)
        return decayed * (0.01 + 0.99 * step / warmup) if step < warmup else decayed

    return lr_scheduler.LambdaLR(optimizer, factor)


def _decay(config: OptimizerConfig, step: int, steps_per_epoch: Fraction, total_steps: int, warmup: int) -> float:
    match config.schedule:
        case "step":
            return config.gamma ** (step // (config.step_epochs * steps_per_epoch))
        case "multistep":
            return config.gamma ** sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
        case "cosine":
            return _cosine(max(0, step - warmup) / max(1, total_steps - warmup))
        case "one_cycle":
            return _one_cycle(step, config.peak * total_steps - 1, total_steps - 1)
        case _:
            return 1.0


def _cosine(progress: float) -> float:
    """From 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(step: int, peak_step: float, last_step: int) -> float:
    """Smith and Topin, 1708.07120, with cosines as in torch's OneCycleLR; the momentum stays as it is."""
    first, last = 1 / 25, 1 / 25e4
    if step <= peak_step:
        return 1 + (first - 1) * _cosine(step / peak_step if peak_step else 1.0)
    return last + (1 - last) * _cosine(min(1.0, (step - peak_step) / max(last_step - peak_step, 1e-9)))


class SameConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """The optimizer of section `optimizer` again."""

    name: Literal["same"] = Field("same", description="the update rule")


AUXILIARY_FAMILY = Family[SameConfig | OptimizerConfig](
    "optimizer", {"same": SameConfig, **OPTIMIZER_FAMILY.variants}, default="same", own=OwnOptimizer
)
"""What trains the parts of a method that learn from feedback: synthesisers, critics, inverses."""
