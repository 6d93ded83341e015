"""How the tensor work of a block's turns is put on its device."""

from typing import NamedTuple, Protocol

from torch import Tensor

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.parts import Combine
from greedypipe.pipeline.sample import Sample, Turn


class Done(NamedTuple):
    """What a block has learned in a turn.

    Attributes:
        loss: The local loss before the step, 0-dim fp32, detached; None where there is none. Valid until the next turn.
        has_stepped: Whether the layers' optimizer has made a step.
    """

    loss: Tensor | None
    has_stepped: bool


class Execution(Protocol):
    """The tensor work of one block. Modes, seeds and counters are the block's business, and set before each call."""

    combine: Combine
    """Merges the gradients of replicas before every step."""

    def forward(self, x: Tensor, batch: Batch, turn: int) -> Sample:
        """Computes the activation of one training batch in training mode; its tensors are valid until the next forward."""
        ...

    def learn(self, turn: Turn) -> Done:
        """Has the method learn, and makes the optimizers' steps. Does not wait for the device."""
        ...

    def restart(self) -> None:
        """Forgets what depends on the memory of the block's state: it has been replaced."""
        ...
