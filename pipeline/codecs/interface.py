"""What a codec is to its block, and to the links."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from greedypipe.pipeline.batch import TensorSpec


class Form(Protocol):
    """How an output travels: as which tensors, in the order of a message, and how they become the output again."""

    @property
    def specs(self) -> tuple[TensorSpec, ...]: ...

    def decode(self, *tensors: Tensor) -> Tensor:
        """The output, in the precision's layout; a new tensor, unless the output travels as it is."""
        ...


class Codec(ABC):
    """Makes of a block's output what every consumer of it receives; one per block, with state of its own."""

    packed: Mapping[str, Tensor]
    """What travels of the output that was given out last, by name; valid until the next one."""

    @abstractmethod
    def give_out(self, h: Tensor, *, learns: bool = False) -> Tensor:
        """What the next block receives, like `h`.

        Args:
            h: The output, detached.
            learns: Whether the codec may learn from it. Otherwise it changes nothing but `packed`.
        """

    def as_module(self) -> nn.Module | None:
        """The same on its own, as it is now, for a network without blocks; None where nothing changes."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs; tensors are references."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, by copies; leaves a state of another shape alone."""
        return
