"""Back-propagation that saves memory, as torch offers it: gradient accumulation, and recomputed activations."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint_sequential

from benchmarks.engines.plain import WholeNetwork, supervised_step
from benchmarks.engines.timing import Case, Seat, Step
from greedypipe.launch.planning.run_plan import Plan


@dataclass(frozen=True)
class Accumulated:
    """One optimizer step per batch, whose gradients are added up over micro-batches.

    Batch normalisation sees micro-batches, as wherever gradients are accumulated.
    """

    micro_batches: int

    def __call__(self, case: Case, seat: Seat) -> Step:
        plan = case.plan(1)
        device = plan.placement.device_of(seat.rank, plan.config.placement)
        return supervised_step(plan, WholeNetwork(plan).to(device), device, self.backward)

    def backward(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Adds the gradients of the batch's mean loss: images [N, C, H, W], labels [N]."""
        for some, own in zip(images.chunk(self.micro_batches), labels.chunk(self.micro_batches), strict=True):
            (functional.cross_entropy(network(some).float(), own, reduction="sum") / len(labels)).backward()


@dataclass(frozen=True)
class Recomputed:
    """Keeps the inputs of `segments` runs of layers, and computes the rest again on the way back (torch.utils.checkpoint).

    The running statistics of batch normalisation move twice per batch, as wherever its layers are computed again.
    """

    segments: int

    def __call__(self, case: Case, seat: Seat) -> Step:
        plan = case.plan(1)
        device = plan.placement.device_of(seat.rank, plan.config.placement)
        return supervised_step(plan, _RecomputingNetwork(plan, self.segments).to(device), device)


class _RecomputingNetwork(WholeNetwork):
    def __init__(self, plan: Plan, segments: int) -> None:
        super().__init__(plan)
        self._segments = segments

    def forward(self, images: Tensor) -> Tensor:
        with self._precision.autocast(images.device):
            x = self._precision.canonical(images)
            found: Tensor = checkpoint_sequential(self.layers, self._segments, x, use_reentrant=False)
            return found


def num_layers(case: Case) -> int:
    """How many layers there are to keep the inputs of, the classifier among them."""
    with torch.no_grad():
        return len(WholeNetwork(case.plan(1)).layers)
