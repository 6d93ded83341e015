"""The interface of networks: a section of the configuration that builds its network."""

from abc import ABC, abstractmethod
from typing import Literal

from pydantic import BaseModel, Field

from greedypipe.pipeline.networks.layer import Network


class ModelConfig(BaseModel, ABC, frozen=True, extra="forbid"):
    """The network that is cut into blocks."""

    name: str = Field(description="the network")
    backward: Literal["exact", "random"] = Field(
        "exact",
        description="random: feedback alignment: convolutions and linear layers pass gradients back through fixed random "
        "tensors in the place of their weights",
    )

    @abstractmethod
    def build(self, input_shape: tuple[int, int, int], num_classes: int) -> Network:
        """Builds the network on the default device, initialised from torch's global generator: seed that first.

        Args:
            input_shape: [C, H, W] of an image.
            num_classes: Number of logits.

        Raises:
            ValueError: The network does not accept such images, or cannot be imported.
        """
