"""What trains the parameters of one block: optimizers, each with its schedule and its largest gradient norm."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from greedypipe.pipeline.optimizer import OptimizerConfig, build_optimizer, build_schedule
from greedypipe.pipeline.rates import rates_of


class Optimization:
    """An optimizer with its schedule, step budget and largest gradient norm.

    Args:
        parameters: What is trained, in an order that every process agrees on.
        steps_per_epoch: Batches of an epoch.
        total_steps: Batches of the run.
    """

    def __init__(
        self, config: OptimizerConfig, parameters: Iterable[nn.Parameter], steps_per_epoch: int, total_steps: int
    ) -> None:
        self.parameters = list(parameters)
        self.total_steps = total_steps
        self._clip_norm = config.clip_norm
        self._optimizer = build_optimizer(config, self.parameters)
        self._schedule = build_schedule(config, self._optimizer, steps_per_epoch, total_steps)
        self._rates = rates_of(config, self._optimizer, self.parameters[0].device)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        # Without torch's `zero_grad`, whose profiling hooks cost a twentieth of a step of a small block.
        for parameter in self.parameters:
            parameter.grad = None

    def advance(self) -> bool:
        """Clips the gradients, makes one step, and advances the schedule; nothing of it where there is no gradient.

        Returns:
            Whether it made a step.
        """
        self.refresh_rate()
        has_stepped = self.apply()
        self.count(has_stepped)
        return has_stepped

    def refresh_rate(self) -> None:
        """Puts the learning rate of the next step where `apply` finds it."""
        self._rates.refresh()

    def apply(self) -> bool:
        """The part of `advance` that runs on the device, which may be recorded; returns whether there were gradients."""
        if all(parameter.grad is None for parameter in self.parameters):
            return False
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self._clip_norm, foreach=True)
        self._rates.step()
        return True

    def count(self, has_stepped: bool) -> None:
        """Advances the schedule behind a step."""
        if has_stepped:
            self._schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """State of optimizer and schedule; tensors are references."""
        return {"optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; takes its tensors over."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        # The saved learning rate is that of a run of the saved length, which may not be this one's.
        rates = zip(self._schedule.base_lrs, self._schedule.lr_lambdas, strict=True)
        for group, (rate, factor) in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(self._schedule.last_epoch)


class Optimizations:
    """All optimizers of one block.

    Parameters that learn in other turns than the layers need an optimizer of their own: torch's fused ones want either all
    of their parameters to have a state or none, and a schedule counts its own steps.

    Args:
        main: Of the layers, and of what learns whenever they do.
        others: By name.
    """

    def __init__(self, main: Optimization, others: Mapping[str, Optimization]) -> None:
        self.main = main
        self._others = others
        self._all = [main, *others.values()]
        self.parameters = [parameter for one in self._all for parameter in one.parameters]

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for one in self._all:
            one.zero_grad()

    def advance(self) -> bool:
        """Advances each one that has gradients; returns whether the main one has made a step."""
        has_stepped = self.main.advance()
        for one in self._others.values():
            one.advance()
        return has_stepped

    def refresh_rates(self) -> None:
        """See `Optimization.refresh_rate`."""
        for one in self._all:
            one.refresh_rate()

    def apply(self) -> tuple[bool, ...]:
        """See `Optimization.apply`: of each one, the main one first."""
        return tuple(one.apply() for one in self._all)

    def count(self, have_stepped: Sequence[bool]) -> bool:
        """Advances the schedules of those that have made a step; returns whether the main one has."""
        for one, has_stepped in zip(self._all, have_stepped, strict=True):
            one.count(has_stepped)
        return have_stepped[0]

    def state_dict(self) -> dict[str, Any]:
        """The main one's state, and those of the others by name; tensors are references."""
        return self.main.state_dict() | {"others": {name: one.state_dict() for name, one in self._others.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; others that it lacks stay as they are. Takes its tensors over."""
        self.main.load_state_dict(state)
        for name, one in self._others.items():
            if name in state["others"]:
                one.load_state_dict(state["others"][name])
