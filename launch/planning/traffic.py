"""What travels between stages: what the blocks behind need of every batch, and nothing else.

It follows from the blueprint, the placement and the link's settings alone. A new kind of tensor that methods may need is a
line in `_needables`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch

from greedypipe.pipeline.build import Blueprint, Task
from greedypipe.workers.links.encoding import TensorSpec
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.placement import Placement

LABELS = "labels"


@dataclass(frozen=True)
class Edge:
    """The messages from one stage to the next.

    Attributes:
        sender: The stage.
        batch_size: Rows of a whole batch.
        specs: The tensors of every kind of message.
    """

    sender: int
    batch_size: int
    specs: Mapping[Kind, tuple[TensorSpec, ...]]

    @property
    def carried(self) -> tuple[str, ...]:
        """Names of what a training message has besides the activation: passed through as it came."""
        return tuple(spec.name for spec in self.specs[Kind.TRAIN] if spec.name != "activation")

    def layout(self, share: Fraction = Fraction(1)) -> MessageLayout:
        """The layout of a link for this share of every batch."""
        return MessageLayout(math.ceil(self.batch_size * share), self.specs)


def edges(blueprint: Blueprint, placement: Placement, link: LinkConfig, batch_size: int) -> tuple[Edge, ...]:
    """Every pair of neighbouring stages, in order: one fewer than stages."""
    return tuple(
        Edge(stage, batch_size, _specs_after(blueprint, placement.blocks_of(stage)[-1], link))
        for stage in range(placement.num_stages - 1)
    )


def bytes_after(blueprint: Blueprint, link: LinkConfig, batch_size: int) -> tuple[int, ...]:
    """Bytes of a training message behind every block, with its activation and the labels.

    What methods need besides depends on how many blocks follow, not on where they are cut, so it tells no cut from another.
    """
    labels = _needables(blueprint.task)[LABELS]
    return tuple(
        MessageLayout(batch_size, {Kind.TRAIN: (labels, _activation(blueprint, block, link))}).slot_bytes
        for block in range(blueprint.num_blocks)
    )


def _specs_after(blueprint: Blueprint, block: int, link: LinkConfig) -> Mapping[Kind, tuple[TensorSpec, ...]]:
    needed = {LABELS}.union(*(_needs(blueprint, later) for later in range(block + 1, blueprint.num_blocks)))
    carried = {name: spec for name, spec in _needables(blueprint.task).items() if name in needed}
    labels, activation = carried.pop(LABELS), _activation(blueprint, block, link)
    ensemble = TensorSpec("ensemble", (blueprint.task.num_classes,), torch.float32)
    return {Kind.TRAIN: (labels, activation, *carried.values()), Kind.EVALUATE: (labels, activation, ensemble)}


def _needables(task: Task) -> Mapping[str, TensorSpec]:
    """All that a block's method may need besides its activation, by name; the labels travel in any case."""
    return {
        LABELS: TensorSpec(LABELS, (), torch.int64),
        "image": TensorSpec("image", task.input_shape, torch.float32),
    }


def _needs(blueprint: Blueprint, block: int) -> frozenset[str]:
    return frozenset({LABELS, "image"} if blueprint.needs_image(block) else {LABELS})


def _activation(blueprint: Blueprint, block: int, link: LinkConfig) -> TensorSpec:
    precision, shape = blueprint.precision, blueprint.shapes[block].output
    return TensorSpec("activation", shape, precision.activation_dtype, precision.channels_last, link.dtype)
