"""An optimizer of your own, which config.yaml names: any torch.optim.Optimizer, called with a block's parameters and lr."""

from collections.abc import Iterable

import torch
from torch import nn, optim


class SignDescent(optim.Optimizer):
    """Steps of one size along the sign of the averaged gradient (Bernstein et al., ICML 2018, Signum)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Makes one step; `state` is saved and resumed with the block."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                    mean.lerp_(parameter.grad, 1 - group["momentum"])
                    parameter.add_(mean.sign(), alpha=-group["lr"])
