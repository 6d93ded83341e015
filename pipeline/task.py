"""What a network is trained to do: the loss, the metric and the ensemble rule that every head shares."""

import copy
from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from greedypipe.pipeline.batch import IMAGE, LABELS, TensorSpec

Reduction = Literal["mean", "none"]


class Task(ABC):
    """The meaning of the network's outputs.

    Attributes:
        input: Tensor that stage 0 receives.
        target: Tensor that outputs are compared with.
        outputs: Number of outputs of a head for each target.
        views: Rows of a training batch that show one sample: they are neighbours, rows views * i to views * i + views - 1.
        extras: What training batches carry besides labels and image.
        mean: What was subtracted from the input, per channel, or one number for all of them.
        std: What it was divided by then.
    """

    input: TensorSpec
    target: TensorSpec
    outputs: int
    views: int = 1
    extras: tuple[TensorSpec, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def with_outputs(self, outputs: int) -> Self:
        """The same task with another number of outputs."""
        other = copy.copy(self)
        other.outputs = outputs
        return other

    @property
    def image_shape(self) -> tuple[int, ...]:
        """[C, H, W] of an image that stage 0 receives; [C, T] of a signal, [F] of a vector."""
        return self.input.shape

    @property
    @abstractmethod
    def ensemble(self) -> TensorSpec:
        """Tensor that travels with an evaluation batch to combine the heads' outputs."""

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
        """The loss that heads learn by, in fp32: 0-dim, or one number per sample, [N]."""

    @abstractmethod
    def surprise(self, outputs: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Negative log-likelihood of the targets in fp32, by which outputs are judged: 0-dim, or [N]."""

    @abstractmethod
    def hits(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Whether each answer is right, bool; `outputs` may have further dimensions in front."""

    @abstractmethod
    def add_to_ensemble(self, ensemble: Tensor, outputs: Tensor, block_index: int) -> Tensor:
        """Adds the outputs of this block's head to the combined outputs of the earlier ones (zeros before the first)."""


class Classification(Task):
    """One of `num_classes` classes for each sample.

    Args:
        input_shape: [C, H, W] of an image, [C, T] of a signal, [F] of a vector.
        num_classes: Number of logits.
        label_smoothing: Share of the target's probability that all classes have alike in the loss.
        mean: What was subtracted from images.
        std: What they were divided by.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        label_smoothing: float = 0.0,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
    ) -> None:
        self._label_smoothing = label_smoothing
        self.mean, self.std = mean, std
        self.input = TensorSpec(IMAGE, tuple(input_shape), torch.float32)
        self.target = TensorSpec(LABELS, (), torch.int64)
        self.outputs = num_classes

    @property
    def ensemble(self) -> TensorSpec:
        return TensorSpec("ensemble", (self.outputs,), torch.float32)

    def loss(self, outputs: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy of logits [N, classes] and classes [N], with smoothed labels."""
        return functional.cross_entropy(outputs.float(), target, reduction=reduction, label_smoothing=self._label_smoothing)

    def surprise(self, outputs: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy of logits [N, classes] and classes [N]."""
        return functional.cross_entropy(outputs.float(), target, reduction=reduction)

    def hits(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Whether the largest logit is that of the class; logits [..., N, classes], classes [N], result [..., N]."""
        return outputs.argmax(-1) == target

    def add_to_ensemble(self, ensemble: Tensor, outputs: Tensor, block_index: int) -> Tensor:
        """DGL's ensemble (Belilovsky et al., ICML 2020): the sum of the heads' logits weighted by 2^n.

        The published weights are divided by their sum, which does not change the argmax.
        """
        return ensemble + outputs * 2.0**block_index
