"""Messages between stages: they carry the tensors that the methods of later blocks need, and nothing else.

They follow from the blueprint, the placement and the link's settings alone. A new kind of tensor that methods may need is
a line in `_needables`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS, TensorSpec
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.task import Task
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.placement import Placement


@dataclass(frozen=True)
class Edge:
    """The messages from one stage to the next.

    Attributes:
        sender: Index of the sending stage.
        carried: Names of the tensors of a training message besides the activation; they are passed through unchanged.
        batch_size: Rows of a whole batch.
        specs: The tensors of every kind of message.
        encodings: Encoding by tensor name, as in `MessageLayout`.
    """

    sender: int
    carried: tuple[str, ...]
    batch_size: int
    specs: Mapping[Kind, tuple[TensorSpec, ...]]
    encodings: Mapping[str, str]

    def layout(self, share: Fraction = Fraction(1)) -> MessageLayout:
        """The layout of a link that carries this share of every batch."""
        return MessageLayout(math.ceil(self.batch_size * share), self.specs, self.encodings)


def edges(blueprint: Blueprint, placement: Placement, link: LinkConfig, batch_size: int) -> tuple[Edge, ...]:
    """Every pair of neighbouring stages, in order: one fewer than stages."""
    return tuple(
        _edge(blueprint, stage, placement.blocks_of(stage)[-1], link, batch_size)
        for stage in range(placement.num_stages - 1)
    )


def layout_back(blueprint: Blueprint, block: int, batch_size: int, share: Fraction = Fraction(1)) -> MessageLayout | None:
    """What block `block` sends to the block before it, where that is hosted elsewhere, over a link that carries this share
    of every batch; None: nothing."""
    sent = blueprint.sends(block)
    if not sent:
        return None
    precision = blueprint.precision
    specs = tuple(
        TensorSpec(
            back.name,
            back.shape,
            back.dtype or precision.activation_dtype,
            precision.channels_last and len(back.shape) == 3,
        )
        for back in sent
    )
    rows = math.ceil(batch_size * share) if blueprint.sends_rows(block) else 1
    return MessageLayout(rows, {Kind.FEEDBACK: specs})


def bytes_after(blueprint: Blueprint, link: LinkConfig, batch_size: int) -> tuple[int, ...]:
    """Bytes of a training message behind every block, with its activation and the labels.

    Further tensors depend on the methods of the blocks that follow, not on where they are cut, so they cannot decide
    between two cuts.
    """
    target = blueprint.task.target
    layouts = (
        MessageLayout(batch_size, {Kind.TRAIN: (_activation(blueprint, block), target)}, {ACTIVATION: link.dtype})
        for block in range(blueprint.num_blocks)
    )
    return tuple(layout.slot_bytes for layout in layouts)


def unknown_needs(blueprint: Blueprint) -> Iterator[str]:
    """Tensors that methods need but no message can carry, a line each."""
    known = _needables(blueprint.task)
    needed = frozenset[str]().union(*(blueprint.needs(block) for block in range(blueprint.num_blocks)))
    for name in sorted(needed - known.keys()):
        method = blueprint.sections.method.name
        yield f"method.name: got {method}, which needs {name!r}, allowed: methods that need {' or '.join(sorted(known))}"


def _edge(blueprint: Blueprint, stage: int, block: int, link: LinkConfig, batch_size: int) -> Edge:
    task, activation = blueprint.task, _activation(blueprint, block)
    needed = frozenset[str]().union(*(blueprint.needs(later) for later in range(block + 1, blueprint.num_blocks)))
    carried = tuple(sorted(needed))
    known = _needables(task)
    specs = {
        Kind.TRAIN: (activation, *(known[name] for name in carried)),
        Kind.EVALUATE: (activation, task.target, task.ensemble),
    }
    return Edge(stage, carried, batch_size, specs, {ACTIVATION: link.dtype})


def _needables(task: Task) -> Mapping[str, TensorSpec]:
    """All tensors that a block's method may need besides its input, by name."""
    return {LABELS: task.target, IMAGE: task.input}


def _activation(blueprint: Blueprint, block: int) -> TensorSpec:
    precision, shape = blueprint.precision, blueprint.shapes[block].output
    return TensorSpec(ACTIVATION, shape, precision.activation_dtype, precision.channels_last)
