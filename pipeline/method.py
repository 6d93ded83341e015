"""The interface of methods: how one block learns. A method is one file in pipeline/methods/."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from greedypipe.pipeline.batch import LABELS
from greedypipe.pipeline.site import Site


@dataclass(frozen=True, eq=False)
class Sample:
    """One training batch as seen by a block.

    Attributes:
        x: Input of the block, [N, *shapes.input], without a graph.
        h: Activation of the block, [N, *shapes.output], with its graph down to the block's layers, unless the method
            does not train them.
        labels: Targets of the task, [N, ...].
        extras: Further tensors that the method needs, by name, each [N, ...]; "image" is the network's input in fp32.
    """

    x: Tensor
    h: Tensor
    labels: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Turn:
    """A block's handling of one batch.

    Attributes:
        number: Turns of the block before this one.
        fresh: The batch whose activation the block has just computed.
    """

    number: int
    fresh: Sample

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a 0-dim loss; outside autocast, as torch advises."""
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()


class MethodConfig(BaseModel, frozen=True, extra="forbid"):
    """The method of every block but the last, which learns by the task's loss through the network's classifier."""

    name: str = Field(description="the method")


class Method(nn.Module, ABC):
    """How one block learns: its head, its objective, and what it needs of a batch. Owned by its block.

    A method is built as ``Class(site, **keys)``; its name and keys come from section `method` of the configuration. Keys
    are checked against the nested `Config` if the class has one, else against the signature of the constructor.

    Attributes:
        needs: Names of the tensors that messages must carry as far as this block: "labels", "image".
        trains_layers: Whether any gradient reaches the block's layers; otherwise they keep their initial weights.
        head: Activation [N, ...] to outputs of the task, [N, classes]. If the objective does not train the layers through
            the head, the head is a probe that learns from the detached activation, so that every block has an accuracy.
    """

    Config: ClassVar[type[MethodConfig]]
    needs: ClassVar[frozenset[str]] = frozenset({LABELS})
    trains_layers: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.task = site.task
        self.head = site.make_head(site)

    @abstractmethod
    def learn(self, turn: Turn) -> Tensor:
        """Accumulates gradients in the block's layers and in its own parameters; never steps.

        Returns:
            The local loss before the step, 0-dim fp32, detached.
        """


class LocalLoss(Method):
    """A method that minimises a loss of the current batch: nothing travels back."""

    def learn(self, turn: Turn) -> Tensor:
        loss: Tensor = self(turn.fresh)
        turn.backward(loss)
        return loss.detach()

    def forward(self, sample: Sample) -> Tensor:
        """The loss of a batch, as a module call, so that torch.compile can compile it."""
        return self.loss(sample)

    @abstractmethod
    def loss(self, sample: Sample) -> Tensor:
        """The loss of a batch, 0-dim fp32."""


class TaskLoss(LocalLoss):
    """The task's own loss through the head; always the method of the last block, whose head is the classifier."""

    def loss(self, sample: Sample) -> Tensor:
        return self.task.loss(self.head(sample.h), sample.labels)
