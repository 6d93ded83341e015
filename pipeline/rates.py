"""Where an optimizer's learning rate lies when it makes its step: in a Python number, or in a tensor on its device.

The number stays in the optimizer's groups all the same, where schedules set it and states are saved: nobody ever reads it
from the device.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, optim

from greedypipe.pipeline.optimizer import OptimizerConfig

TENSORS_ON = frozenset({"cuda"})
"""Types of device on which rates are tensors: a graph that was recorded there would have today's number for ever. A rate in
fp32 moves parameters by an ulp less or more, so it is the rule there, with graphs and without: the bits are the same."""


class Rates(Protocol):
    """The learning rates of all groups of an optimizer."""

    def refresh(self) -> None:
        """Puts the present rates where `step` finds them."""
        ...

    def step(self) -> None:
        """Makes the optimizer's step with the rates of the last `refresh`."""
        ...


class Numbers:
    """The rates that the groups say."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self._optimizer = optimizer

    def refresh(self) -> None:
        """They are there."""

    def step(self) -> None:
        """See `Rates.step`."""
        self._optimizer.step()


class Tensors:
    """0-dim tensors on the optimizer's device, written only where a rate has changed."""

    def __init__(self, optimizer: optim.Optimizer, device: torch.device) -> None:
        self._optimizer: Any = optimizer
        self._rates: list[Tensor] = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._written = [float("nan")] * len(self._rates)
        # Its steps are recorded or not, as the block likes: torch would advise against both.
        self._optimizer._warned_capturable_if_run_uncaptured = True

    def refresh(self) -> None:
        """See `Rates.refresh`; does not wait for the device."""
        for number, (group, rate) in enumerate(zip(self._optimizer.param_groups, self._rates, strict=True)):
            if group["lr"] != self._written[number]:
                self._written[number] = group["lr"]
                rate.fill_(group["lr"])

    def step(self) -> None:
        """See `Rates.step`."""
        groups = self._optimizer.param_groups
        before = [{key: group[key] for key in ("lr", "capturable") if key in group} for group in groups]
        try:
            for group, rate, kept in zip(groups, self._rates, before, strict=True):
                group.update({**kept, "lr": rate} | ({"capturable": True} if "capturable" in kept else {}))
            self._optimizer.step()
        finally:
            for group, kept in zip(groups, before, strict=True):
                group.update(kept)


def rates_of(config: OptimizerConfig, optimizer: optim.Optimizer, device: torch.device) -> Rates:
    """How the optimizer of parameters on `device` gets its learning rates."""
    return Tensors(optimizer, device) if config.takes_tensors and device.type in TENSORS_ON else Numbers(optimizer)
