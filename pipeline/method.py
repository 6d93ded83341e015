"""The interface of methods: how one block learns. A method is one file in pipeline/methods/."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field
from torch import Tensor, nn

from greedypipe.pipeline.batch import LABELS
from greedypipe.pipeline.feedback import Back, Reach
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.sample import Sample, Turn
from greedypipe.pipeline.site import Site

__all__ = ["LocalLoss", "Method", "MethodConfig", "Sample", "TaskLoss", "Turn"]


class MethodConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """The method of every block but the last, which learns by the task's loss through the network's classifier."""

    name: str = Field(description="the method")

    @property
    def innermost(self) -> BaseModel:
        """The section of the method that computes the own loss: this one, or one that it holds."""
        return self


class Method(nn.Module, ABC):
    """How one block learns: its head, its objective, and what it needs of a batch. Owned by its block.

    A method is built as ``Class(site, **keys)``; its name and keys come from section `method` of the configuration. Keys
    are checked against the nested `Config` if the class has one, else against the signature of the constructor.

    Attributes:
        needs: Names of the tensors that messages must carry as far as this block: "labels", "image", and with the pretext
            task for it "rotation", "colours" or "mask".
        views: Views of every sample that a training batch must have at least; `site.task.views` says how many it has.
        reach: What feedback the method lives on; without any, nothing travels back.
        relays: Whether what it sends depends on what it has read, so that the last feedback of the stream is passed on.
        drains: Whether layers learn from feedback alone, so that they wait for the last one at the end of the stream.
        trains_layers: Whether any gradient reaches the block's layers; otherwise they keep their initial weights.
        fresh_graph: Whether the activation of a fresh batch has a graph where feedback comes later.
        input_gradient: Whether `Sample.x` gathers its gradient, in blocks with a block before them.
        keeps: What is kept of a batch until the feedback on it comes: "input", "output", "graph" (on copied weights).
        compares_samples: Whether the loss is no mean over rows, so that replicas cannot share a batch.
        unrecorded: Why a turn cannot be recorded, without Python, and done again for every batch (training.graphs), as the
            end of a sentence; empty where it can: the same operations on the same tensors, no number read back.
        own_head: Whether the method brings its own head, so that section `head` has no effect.
        head: Activation [N, ...] to outputs of the task, [N, classes]. If the objective does not train the layers through
            the head, the head is a probe that learns from the detached activation, so that every block has an accuracy.
    """

    Config: ClassVar[type[MethodConfig]]
    needs: ClassVar[frozenset[str]] = frozenset({LABELS})
    views: ClassVar[int] = 1
    reach: ClassVar[Reach] = Reach.NONE
    relays: bool = False
    drains: bool = False
    trains_layers: ClassVar[bool] = True
    compares_samples: ClassVar[bool] = False
    unrecorded: ClassVar[str] = "it does not say that all of its turns are alike"
    own_head: ClassVar[bool] = False
    fresh_graph: bool = True
    input_gradient: bool = False
    keeps: frozenset[str] = frozenset()

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.task = site.task
        self.head = site.make_head(site)

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> "Method":
        """The method of the last block, where the others learn by this one: it minimises the task's loss."""
        return TaskLoss(site)

    @classmethod
    def needed(cls, **keys: Any) -> frozenset[str]:
        """`needs`, where they depend on the method's keys."""
        return cls.needs

    @classmethod
    def wanted_views(cls, **keys: Any) -> int:
        """`views`, where they depend on the method's keys."""
        return cls.views

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        """What the block at `site`, the last one included, sends to the block before it. Draws no random number."""
        return ()

    @classmethod
    def unshared(cls, is_last: bool, **keys: Any) -> str:
        """Why several replicas of a block cannot share a batch, each with some of its rows, as the end of a sentence; empty
        where they can. The network's last block learns by the task's loss."""
        if is_last or not cls.compares_samples:
            return ""
        return "its loss compares the samples of a batch with each other, of which replicas see a part each"

    @classmethod
    def check(cls, site: Site, **keys: Any) -> None:
        """Checks that the block at `site`, which is not the last one, can learn so. Draws no random number.

        Raises:
            ValueError: It cannot; one line.
        """

    @classmethod
    def looks_inside(cls, **keys: Any) -> bool:
        """Whether `taps` may name anything, with these keys: compiled layers do not show what they hold."""
        return False

    def taps(self) -> Sequence[nn.Module]:
        """Modules inside the block's layers whose outputs `Sample.inner` is to have."""
        return ()

    def auxiliary(self) -> Iterable[nn.Parameter]:
        """Parameters with an optimizer of their own, which section `auxiliary` describes."""
        return ()

    def probe(self) -> Iterable[nn.Parameter]:
        """Parameters that learn in other turns than the layers, and so have an optimizer of their own, like the layers'."""
        return ()

    def frozen(self) -> Iterable[nn.Parameter]:
        """Parameters that no optimizer trains."""
        return ()

    @abstractmethod
    def learn(self, turn: Turn) -> Tensor | None:
        """Accumulates gradients in the block's layers and in its own parameters, and fills `turn.back`; never steps.

        Returns:
            The local loss before the step, 0-dim fp32, detached; None where there is none.
        """

    def probe_loss(self, sample: Sample) -> Tensor:
        """The task's loss of the head as a probe: it does not reach the layers. 0-dim fp32."""
        return self.task.loss(self.head(sample.h.detach()), sample.labels)

    def learn_probe(self, sample: Sample) -> Tensor:
        """The head learns the task from the detached activation; returns its loss, detached."""
        loss = self.probe_loss(sample)
        with without_autocast(loss.device):
            sample.as_part(loss).backward()
        return loss.detach()


class LocalLoss(Method):
    """A method that minimises a loss of the current batch: nothing travels back."""

    unrecorded = ""

    def learn(self, turn: Turn) -> Tensor:
        assert turn.fresh is not None, "only methods with feedback have turns without a fresh batch"
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
