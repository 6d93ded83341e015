"""The synthesiser of decoupled neural interfaces: from an activation to a guess at the gradient of the loss by it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Synthesiser(nn.Module):
    """Guesses gradients [N, *shape] of activations [N, *shape]: zero at first.

    Three convolutions of the activation's width with batch normalisation and ReLU between them; linear layers for vectors.
    With labels, a linear map of the one-hot label is added behind the first of them (Belilovsky et al., code of DGL's
    comparison with DNI). The last layer's weight and bias start at zero.

    Args:
        shape: [C, H, W] or [C] of the activation.
        classes: Number of classes where it sees labels; 0: it does not.
        kernel: Width of the convolutions.

    Raises:
        ValueError: Activations are tokens.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, kernel: int) -> None:
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(f"method.name: got synthetic gradients of tokens {list(shape)}, allowed: maps and vectors")
        width, is_map = shape[0], len(shape) == 3
        layer: Callable[[], nn.Conv2d | nn.Linear] = (
            (lambda: nn.Conv2d(width, width, kernel, padding="same")) if is_map else (lambda: nn.Linear(width, width))
        )
        norm = nn.BatchNorm2d if is_map else nn.BatchNorm1d
        self.first, self.hidden, self.output = layer(), layer(), layer()
        self.first_norm, self.hidden_norm = norm(width), norm(width)
        self.context = nn.Linear(classes, width) if classes else None
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        self._classes = classes
        self._spatial = (1, 1) if is_map else ()

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        x = self.first(h)
        if self.context is not None:
            seen = self.context(functional.one_hot(labels, self._classes).to(torch.float32))
            x = x + seen.reshape(*seen.shape, *self._spatial)
        x = self.hidden(functional.relu(self.first_norm(x)))
        guess: Tensor = self.output(functional.relu(self.hidden_norm(x)))
        return guess
