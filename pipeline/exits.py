"""Evaluation of a network's exits: accuracy of every head, calibrated confidence, and early exit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from greedypipe.pipeline.block import Block
from greedypipe.pipeline.task import Task


@dataclass(frozen=True)
class Exits:
    """Outputs of all heads for the same samples, in the network's order: logits fp32 [heads, N, classes], labels [N]."""

    task: Task
    logits: Tensor
    labels: Tensor

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each head, in [0, 1]."""
        return self.task.hits(self.logits, self.labels).double().mean(1).tolist()

    @property
    def ensemble_accuracy(self) -> float:
        """Accuracy of all heads together, by the task's rule."""
        ensemble = torch.zeros_like(self.logits[0])
        for index, logits in enumerate(self.logits):
            ensemble = self.task.add_to_ensemble(ensemble, logits, index)
        return float(self.task.hits(ensemble, self.labels).double().mean())


@dataclass(frozen=True)
class EarlyExit:
    """Result of letting every sample leave at the first head that is confident enough.

    Attributes:
        threshold: Confidence that a head needs to answer; the last head always answers.
        accuracy: Accuracy over all samples, in [0, 1].
        cost: Mean multiply-adds per sample over those of the whole network without auxiliary heads.
        shares: Fraction of the samples that leave at each head, in the network's order.
    """

    threshold: float
    accuracy: float
    cost: float
    shares: list[float]


def outputs(blocks: Sequence[Block], images: Tensor) -> Tensor:
    """The outputs of all heads for images [N, C, H, W], in evaluation mode: fp32 [heads, N, classes], on the CPU."""
    x, found = images.to(blocks[0].device), []
    for block in blocks:
        x, logits = block.predict(x)
        found.append(logits.cpu())
    return torch.stack(found)


def features(blocks: Sequence[Block], images: Tensor, layer: str) -> Tensor:
    """The activation behind a layer for images [N, C, H, W], in evaluation mode: fp32 [N, ...], on the CPU.

    Raises:
        ValueError: There is no such layer.
    """
    modules = {one.name: one.module for block in blocks for one in block.layers}
    if layer not in modules:
        raise ValueError(f"layer: got {layer!r}, allowed: {', '.join(modules)}")
    found: list[Tensor] = []
    hook = modules[layer].register_forward_hook(lambda module, arguments, output: found.append(output))
    try:
        x = images.to(blocks[0].device)
        for block in blocks:
            x = block.pass_through(x)
            if found:
                break
    finally:
        hook.remove()
    return found[0].float().cpu()


def collect(blocks: Sequence[Block], batches: Iterable[tuple[Tensor, Tensor]]) -> Exits:
    """Runs images [N, C, H, W] through all blocks in evaluation mode and collects the heads' outputs on the CPU."""
    logits, labels = [], []
    for images, classes in batches:
        logits.append(outputs(blocks, images))
        labels.append(classes)
    return Exits(blocks[0].site.task, torch.cat(logits, 1), torch.cat(labels))


def fit_temperatures(exits: Exits) -> list[float]:
    """Fits a temperature for each head by minimising the negative log-likelihood (Guo et al., *On Calibration of Modern
    Neural Networks*, ICML 2017, section 4.2)."""
    log_temperature = torch.zeros(len(exits.logits), 1, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scaled = (exits.logits / log_temperature.exp()).flatten(0, 1)
        loss = exits.task.surprise(scaled, exits.labels.repeat(len(exits.logits)))
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_temperature.detach().exp().flatten().tolist()


def calibration_error(exits: Exits, temperatures: Sequence[float], bins: int = 15) -> list[float]:
    """Expected calibration error of each head: mean gap between confidence and accuracy, over bins of confidence."""
    errors = []
    for probabilities, right in zip(*_confidences(exits, temperatures), strict=True):
        chosen = (probabilities * bins).long().clamp(max=bins - 1)
        gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, chosen, probabilities.double() - right.double())
        errors.append(float(gaps.abs().sum() / len(right)))
    return errors


def early_exit(exits: Exits, temperatures: Sequence[float], costs: Sequence[float], threshold: float) -> EarlyExit:
    """Leaves every sample at the first head whose confidence reaches `threshold`.

    Args:
        costs: Cost of leaving at each head, from `exit_costs`.
    """
    confidence, right = _confidences(exits, temperatures)
    confident = confidence >= threshold
    confident[-1] = True
    left_at = confident.int().argmax(0)
    shares = torch.bincount(left_at, minlength=len(confident)).double() / len(left_at)
    accuracy = right.gather(0, left_at[None]).double().mean()
    return EarlyExit(threshold, float(accuracy), float(shares @ torch.tensor(costs, dtype=torch.float64)), shares.tolist())


def _confidences(exits: Exits, temperatures: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Probability of each head's answer, and whether it is right; both [heads, N]."""
    scaled = exits.logits / torch.tensor(temperatures)[:, None, None]
    return scaled.softmax(2).amax(2), exits.task.hits(scaled, exits.labels)


def exit_costs(blocks: Sequence[Block], images: Tensor) -> list[float]:
    """Multiply-adds of answering at each head, earlier heads included, relative to the whole network without auxiliary
    heads. Counted by torch on `images` [N, C, H, W]; element-wise work is not counted."""
    x, trunk, heads = images, 0, list[int]()
    so_far = []
    for block in blocks:
        with FlopCounterMode(display=False) as layers:
            following = block.pass_through(x)
        with FlopCounterMode(display=False) as whole:
            block.predict(x)
        trunk += layers.get_total_flops()
        heads.append(whole.get_total_flops() - layers.get_total_flops())
        so_far.append(trunk + sum(heads))
        x = following
    return [flops / (trunk + heads[-1]) for flops in so_far]
