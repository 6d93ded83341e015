"""A block: consecutive layers with their method, optimizer and schedule; the unit of gradient isolation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.method import Method, Sample, Turn
from greedypipe.pipeline.optimizer import Optimization
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.randomness import derive_seed, seed_global_generator
from greedypipe.pipeline.site import Shapes, Site

Combine = Callable[[Sequence[nn.Parameter], float], None]
"""Turns the gradients of parameters over a share of a batch's rows into those over the whole batch."""


def _keep_gradients(parameters: Sequence[nn.Parameter], share: float) -> None:
    """No-op: without replicas a block sees all rows of a batch."""


class Block:
    """Consecutive layers that learn by their own method (Belilovsky et al., ICML 2020, Algorithm 1).

    A block knows nothing of processes, links or other blocks. Its dropout is a function of (seed, index, step).

    Args:
        site: Place of the block in the network, with its layers, on `device`.
        method: How the block learns, on `device`.
        optimization: Optimizer over the parameters of layers and method, schedule, and step budget.
        precision: Dtype and memory layout.
        seed: Seed of the run.
    """

    def __init__(
        self, site: Site, method: Method, optimization: Optimization, precision: Precision, seed: int, device: torch.device
    ) -> None:
        self.site = site
        self.index = site.index
        self.layers = site.layers
        self.method = method
        self.precision = precision
        self.step = 0
        self.device = device
        self._saved_layers = (*site.layers, site.classifier) if site.classifier else site.layers
        self._trunk = nn.Sequential(*(layer.module for layer in site.layers))
        self._optimization = optimization
        self._seed = seed
        self._combine: Combine = _keep_gradients
        self._own_part: tuple[int, ...] = ()
        self._fresh: Sample | None = None
        self._share = 1.0

    @property
    def shapes(self) -> Shapes:
        """Shapes of the input and of the activation."""
        return self.site.shapes

    @property
    def total_steps(self) -> int:
        """Step budget of the run."""
        return self._optimization.total_steps

    @property
    def finished(self) -> bool:
        """Whether the step budget is used up: the block passes activations through, with frozen weights."""
        return self.step >= self.total_steps

    @property
    def num_parameters(self) -> int:
        """Parameters of the layers, without the method's."""
        return sum(parameter.numel() for parameter in self._trunk.parameters())

    @property
    def num_head_parameters(self) -> int:
        """Parameters of the method: head and, where it has one, decoder or projection."""
        return sum(parameter.numel() for parameter in self.method.parameters())

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return self._optimization.learning_rate

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Computes the activation of one training batch and keeps it, with its graph, for `learn`.

        Args:
            x: Input [N, *shapes.input] on `device`; not modified, and no gradient ever flows into it.
            batch: Labels and further tensors of the same rows; must stay unchanged until `learn` returns.

        Returns:
            The activation [N, *shapes.output] in the precision's dtype and layout, detached: computed with the weights
            before this step's update, in evaluation mode once the block has finished. It must be neither modified nor
            kept beyond `learn`.
        """
        if self.finished:
            return self.pass_through(x)
        self._set_training(True)
        self._seed_generator("forward")
        x = x.detach()
        with torch.set_grad_enabled(self.method.trains_layers), self.precision.autocast(self.device):
            h = self._run(x)
        self._fresh = Sample(x, h, batch.labels, batch.extras)
        self._share = batch.share
        return h.detach()

    def learn(self) -> Tensor | None:
        """Has the method learn from the batch of the last `forward`, and makes one optimizer step.

        Does not synchronise with the device.

        Returns:
            The local loss before the update, 0-dim fp32, detached, on `device`; None if the batch was only passed through.
        """
        if self._fresh is None and self.finished:
            return None
        assert self._fresh is not None, "learn() without forward()"
        self._set_training(True)
        self._seed_generator("learn")
        self._optimization.zero_grad()
        with self.precision.autocast(self.device):
            loss = self.method.learn(Turn(self.step, self._fresh))
        self._fresh = None
        self._combine(self._optimization.parameters, self._share)
        self._optimization.advance()
        self.step += 1
        return loss

    @torch.no_grad()
    def pass_through(self, x: Tensor) -> Tensor:
        """The activation in evaluation mode, without learning; changes no state."""
        self._set_training(False)
        with self.precision.autocast(self.device):
            return self._run(x)

    @torch.no_grad()
    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Activation, and the head's outputs [N, classes] (fp32), in evaluation mode; changes no state."""
        activation = self.pass_through(x)
        with self.precision.autocast(self.device):
            return activation, self.method.head(activation).float()

    def compile(self) -> None:
        """Compiles layers and method with torch.compile, each as a whole, at their first call.

        Results differ from eager ones in the last bits, as kernels are fused; they do not depend on hosting.
        """
        # With dynamic shapes the second block of a process would get other kernels than it gets in a process of its own.
        self._trunk.compile(dynamic=False)
        self.method.compile(dynamic=False)

    def become_replica(self, number: int, combine: Combine) -> None:
        """Makes this block replica `number` of several: `combine` merges their gradients before every step, and dropout
        differs between them."""
        self._combine = combine
        self._own_part = (number,) if number else ()

    def statistics(self) -> list[Tensor]:
        """Buffers of layers and method, such as the running statistics of batch normalisation."""
        return [*self._trunk.buffers(), *self.method.buffers()]

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue bit-exactly; tensors are references, not copies.

        `layers` uses the ordinary network's parameter names, so that it is independent of the partition. `parameters`
        names the optimizer's numbered parameters; those of the method begin with `method.`.
        """
        return {
            "index": self.index,
            "step": self.step,
            "last_layer": self.layers[-1].name,
            "layers": self.layer_state(),
            "method": self.method.state_dict(),
            "parameters": self._parameter_names(),
            **self._optimization.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the `state_dict` of a block with the same layers and method; takes ownership of its tensors."""
        for layer in self._saved_layers:
            layer.module.load_state_dict({key: state["layers"][layer.qualified(key)] for key in layer.module.state_dict()})
        self.method.load_state_dict(state["method"])
        self._optimization.load_state_dict(state)
        self.step = state["step"]

    def layer_state(self) -> dict[str, Tensor]:
        """Parameters and statistics of the layers, and of the classifier, under the ordinary network's names."""
        return {
            layer.qualified(key): value for layer in self._saved_layers for key, value in layer.module.state_dict().items()
        }

    def _run(self, x: Tensor) -> Tensor:
        x = self._trunk(self.precision.canonical(x))
        return self.precision.canonical(x.to(self.precision.activation_dtype))

    def _seed_generator(self, part: str) -> None:
        # Seeded for each part, not for each step: other blocks may have drawn from the generator in between.
        seed_global_generator(self.device, derive_seed(self._seed, part, self.index, self.step, *self._own_part))

    def _set_training(self, mode: bool) -> None:
        if self._trunk.training != mode:
            self._trunk.train(mode)
            self.method.train(mode)

    def _parameter_names(self) -> list[str]:
        """Names of the trained parameters, in the optimizer's order."""
        names = {id(parameter): f"method.{key}" for key, parameter in self.method.named_parameters()}
        for layer in self.layers:
            names |= {id(parameter): layer.qualified(key) for key, parameter in layer.module.named_parameters()}
        return [names[id(parameter)] for parameter in self._optimization.parameters]
