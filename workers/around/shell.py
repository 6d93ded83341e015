"""The base of wrappers around a block: every operation of a block, passed through."""

from collections.abc import Sequence

import torch
from torch import Tensor

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.codecs import Codec
from greedypipe.pipeline.feedback import NOTHING, Entry, Feedback, Learned, Timing
from greedypipe.pipeline.networks.layer import Layer


class BlockShell:
    """Wraps a block, or another wrapper, for a stage's loop; subclasses override what they change."""

    def __init__(self, block: "AnyBlock") -> None:
        self._block = block

    @property
    def index(self) -> int:
        return self._block.index

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._block.layers

    @property
    def device(self) -> torch.device:
        return self._block.device

    @property
    def timing(self) -> Timing:
        return self._block.timing

    @property
    def relays(self) -> bool:
        return self._block.relays

    @property
    def drain_turns(self) -> int:
        return self._block.drain_turns

    @property
    def line(self) -> Sequence[Entry]:
        return self._block.line

    @property
    def turn(self) -> int:
        return self._block.turn

    @property
    def step(self) -> int:
        return self._block.step

    @property
    def total_steps(self) -> int:
        return self._block.total_steps

    @property
    def finished(self) -> bool:
        return self._block.finished

    @property
    def codec(self) -> Codec:
        return self._block.codec

    @property
    def learning_rate(self) -> float:
        return self._block.learning_rate

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        return self._block.forward(x, batch)

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        return self._block.learn(feedback, drains=drains)

    def pass_through(self, x: Tensor) -> Tensor:
        return self._block.pass_through(x)

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._block.predict(x)


AnyBlock = Block | BlockShell
"""What a stage's loop trains."""
