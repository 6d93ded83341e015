"""The interface of networks: a section of the configuration that builds its network."""

from abc import ABC, abstractmethod
from typing import Literal

from pydantic import BaseModel, Field

from greedypipe.pipeline.networks.layer import Network


class ModelConfig(BaseModel, ABC, frozen=True, extra="forbid", defer_build=True):
    """The network that is cut into blocks."""

    name: str = Field(description="the network")
    backward: Literal["exact", "random"] = Field(
        "exact",
        description="random: feedback alignment: convolutions and linear layers pass gradients back through fixed random "
        "tensors in the place of their weights",
    )

    patches: int = Field(
        0, ge=0, description="side of overlapping patches, half of it apart, that the network sees each on its own; 0: none"
    )

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        """Builds the network on the default device, initialised from torch's global generator: seed that first.

        Args:
            input_shape: Of a sample: [C, H, W] of an image, [C, T] of a signal, [F] of a vector.
            num_classes: Number of logits.

        Raises:
            ValueError: The network does not accept such samples, or cannot be imported.
        """

    def image_shape(self, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape again, for a network that takes nothing but images [C, H, W].

        Raises:
            ValueError: It is that of a signal or a vector.
        """
        if len(input_shape) != 3:
            others = "vgg, basic_cnn and mlp take signals" if len(input_shape) == 2 else "mlp takes vectors"
            raise self._refusal(input_shape, f"images [C, H, W], grey ones [1, H, W]; {others}")
        channels, rows, columns = input_shape
        return channels, rows, columns

    def space_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape again, for a network that takes images [C, H, W] and signals [C, T].

        Raises:
            ValueError: It is that of a vector.
        """
        if len(input_shape) == 1:
            raise self._refusal(input_shape, "images [C, H, W] and signals [C, T]; mlp takes vectors")
        return input_shape

    def _refusal(self, input_shape: tuple[int, ...], allowed: str) -> ValueError:
        shape = " x ".join(map(str, input_shape))
        got = f"model.name: got {self.name} for samples of shape {shape}"
        return ValueError(f"{got}, allowed: {allowed}, as a network of your own may")
