"""A block: consecutive layers, auxiliary head, local loss, optimizer and schedule; the unit of gradient isolation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from greedypipe.pipeline.losses import LocalLoss
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.randomness import derive_seed, seed_global_generator


@dataclass(frozen=True)
class Shapes:
    """What goes into and out of a block, without the batch dimension."""

    input: tuple[int, ...]
    output: tuple[int, ...]


class Block:
    """Layers that learn from their own local loss alone (Belilovsky et al., ICML 2020, Algorithm 1).

    A block knows nothing of processes, links or other blocks. Its dropout is a function of (seed, index, step).

    Args:
        index: Position in the network, from 0.
        layers: Its layers, in order, on `device`.
        classifier: The network's own, where it is this block's head; `layer_state` then has its parameters too.
        loss: Head and criterion, on `device`.
        optimizer: Over the parameters of layers and loss.
        schedule: Advanced once per step.
        shapes: Of activations, without the batch dimension.
        clip_norm: Largest gradient norm; 0 for none.
        steps: Step budget; `finished` afterwards.
        seed: Of the run.
    """

    def __init__(
        self,
        index: int,
        *,
        layers: tuple[Layer, ...],
        classifier: Layer | None,
        loss: LocalLoss,
        optimizer: optim.Optimizer,
        schedule: lr_scheduler.LRScheduler,
        precision: Precision,
        shapes: Shapes,
        clip_norm: float,
        steps: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.index = index
        self.layers = layers
        self.loss = loss
        self._saved_layers = (*layers, classifier) if classifier else layers
        self.shapes = shapes
        self.precision = precision
        self.step = 0
        self.total_steps = steps
        self.device = device
        self._trunk = nn.Sequential(*(layer.module for layer in layers))
        self._learning_trunk: nn.Module = self._trunk
        self._learning_loss: nn.Module = loss
        self._optimizer = optimizer
        self._schedule = schedule
        self._clip_norm = clip_norm
        self._seed = seed
        self._own_part: tuple[int, ...] = ()
        self._output: Tensor | None = None

    @property
    def needs_image(self) -> bool:
        """Whether `learn` wants the network's input images."""
        return self.loss.needs_image

    @property
    def finished(self) -> bool:
        """Whether the step budget is used up; the block may then only hand on (`predict`, `hand_on`)."""
        return self.step >= self.total_steps

    @property
    def num_parameters(self) -> int:
        """Parameters of the layers, without the head."""
        return sum(parameter.numel() for parameter in self._trunk.parameters())

    @property
    def num_head_parameters(self) -> int:
        """Parameters of head and, where the loss has one, decoder or projection."""
        return sum(parameter.numel() for parameter in self.loss.parameters())

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def forward(self, x: Tensor) -> Tensor:
        """Computes the activation of one training batch and keeps its graph for `learn`.

        Args:
            x: Input [N, *shapes.input] on `device`; not modified, and no gradient ever flows into it.

        Returns:
            The activation [N, *shapes.output] in the precision's dtype and layout, detached: computed with the weights
            before this step's update. It must be neither modified nor kept beyond `learn`.
        """
        self._set_training(True)
        self._seed_generator("forward")
        with torch.set_grad_enabled(self.loss.trains_layers), self.precision.autocast(self.device):
            self._output = self._run(self._learning_trunk, x.detach())
        return self._output.detach()

    def learn(self, labels: Tensor, image: Tensor | None = None, weight: float = 1.0) -> Tensor:
        """Head, local loss, backward inside the block and one optimizer step, on the activation of the last `forward`.

        Does not synchronise with the device.

        Args:
            labels: Class indices [N], int64, on `device`.
            image: The network's input of the same batch, [N, C, H, W] fp32; only where `needs_image`.
            weight: Factor of the gradient, where the rows at hand are a part of a batch.

        Returns:
            The local loss before the update, 0-dim fp32, detached, on `device`.
        """
        assert self._output is not None, "learn() without forward()"
        self._set_training(True)
        self._seed_generator("learn")
        with self.precision.autocast(self.device):
            loss = self._learning_loss(self._output, labels, image)
        self._output = None
        self._optimizer.zero_grad(set_to_none=True)
        (loss if weight == 1 else loss * weight).backward()
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._parameters(), self._clip_norm, foreach=True)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def hand_on(self, x: Tensor) -> Tensor:
        """The activation in evaluation mode, without learning: what a finished block sends, and half of `predict`."""
        self._set_training(False)
        with self.precision.autocast(self.device):
            return self._run(self._trunk, x)

    @torch.no_grad()
    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Activation and logits [N, classes] (fp32) in evaluation mode; changes no state."""
        activation = self.hand_on(x)
        with self.precision.autocast(self.device):
            return activation, self.loss.head(activation).float()

    def compile(self) -> None:
        """Has torch.compile translate layers and loss, each as a whole, when they are first called.

        Results differ from eager ones in the last bits, as kernels are fused; they do not depend on who hosts the block.
        """
        # With dynamic shapes the second block of a process would be given other kernels than it gets where it is alone.
        self._trunk.compile(dynamic=False)
        self.loss.compile(dynamic=False)

    def share_learning(self, averaged: Callable[[nn.Module], nn.Module], replica: int) -> None:
        """Makes the block one of several replicas: `forward` and `learn` go through what `averaged` makes of layers and of
        loss, which gives each replica the mean of all gradients; dropout differs between replicas.
        """
        if self.loss.trains_layers:
            self._learning_trunk = averaged(self._trunk)
        self._learning_loss = averaged(self.loss)
        self._own_part = (replica,) if replica else ()

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on bit-exactly; tensors are references, not copies.

        `layers` uses the ordinary network's parameter names, so that it is independent of the partition, and
        `parameters` names what the optimizer's numbers stand for, `loss.` before those of the loss.
        """
        return {
            "index": self.index,
            "step": self.step,
            "last_layer": self.layers[-1].name,
            "layers": self.layer_state(),
            "loss": self.loss.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "parameters": self._parameter_names(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, of a block with the same layers and loss; takes its tensors over."""
        for layer in self._saved_layers:
            layer.module.load_state_dict({key: state["layers"][layer.qualified(key)] for key in layer.module.state_dict()})
        self.loss.load_state_dict(state["loss"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step = state["step"]

    def layer_state(self) -> dict[str, Tensor]:
        """Parameters and statistics of the layers, and of the classifier, under the ordinary network's names."""
        return {
            layer.qualified(key): value for layer in self._saved_layers for key, value in layer.module.state_dict().items()
        }

    def _run(self, trunk: nn.Module, x: Tensor) -> Tensor:
        x = trunk(self.precision.canonical(x))
        return self.precision.canonical(x.to(self.precision.activation_dtype))

    def _seed_generator(self, part: str) -> None:
        # Others may have drawn from the generator since: once per part, not once per step.
        seed_global_generator(self.device, derive_seed(self._seed, part, self.index, self.step, *self._own_part))

    def _set_training(self, mode: bool) -> None:
        if self._trunk.training != mode:
            self._trunk.train(mode)
            self.loss.train(mode)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _parameter_names(self) -> list[str]:
        """Of what the optimizer trains, in its order."""
        names = {id(parameter): f"loss.{key}" for key, parameter in self.loss.named_parameters()}
        for layer in self.layers:
            names |= {id(parameter): layer.qualified(key) for key, parameter in layer.module.named_parameters()}
        return [names[id(parameter)] for parameter in self._parameters()]
