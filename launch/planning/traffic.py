"""Messages between stages: they carry the tensors that the methods of later blocks need, and nothing else.

They follow from the blueprint, the placement and the link's settings alone. What methods may need besides labels and image
is in `Task.extras`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from greedypipe.pipeline.batch import ACTIVATION, COLOURS, IMAGE, LABELS, MASK, ROTATION, TensorSpec
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.codecs import Form
from greedypipe.pipeline.task import Task
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.placement import Placement

PRETEXT_OF = {ROTATION: "rotation", COLOURS: "grey", MASK: "mask"}
"""The value of `data.pretext` that gives a tensor."""


@dataclass(frozen=True)
class Edge:
    """The messages from one stage to the next.

    Attributes:
        sender: Index of the sending stage.
        carried: Names of the tensors of a training message besides the activation; they are passed through unchanged.
        batch_rows: Rows of a whole batch.
        specs: The tensors of every kind of message.
        encodings: Encoding by tensor name, as in `MessageLayout`.
        form: How the activation travels.
    """

    sender: int
    carried: tuple[str, ...]
    batch_rows: int
    specs: Mapping[Kind, tuple[TensorSpec, ...]]
    encodings: Mapping[str, str]
    form: Form

    def layout(self, share: Fraction = Fraction(1)) -> MessageLayout:
        """The layout of a link that carries this share of every batch."""
        parts = tuple(spec.name for spec in self.form.specs)
        joins = {} if parts == (ACTIVATION,) else {ACTIVATION: (parts, self.form.decode)}
        return MessageLayout(math.ceil(self.batch_rows * share), self.specs, self.encodings, joins)


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
    rows = math.ceil(batch_size * blueprint.task.views * share) if blueprint.sends_rows(block) else 1
    return MessageLayout(rows, {Kind.FEEDBACK: specs})


def bytes_after(blueprint: Blueprint, link: LinkConfig, batch_size: int) -> tuple[int, ...]:
    """Bytes of a training message behind every block, with its activation and the labels.

    Further tensors depend on the methods of the blocks that follow, not on where they are cut, so they cannot decide
    between two cuts.
    """
    target = blueprint.task.target
    layouts = (
        MessageLayout(
            batch_size * blueprint.task.views,
            {Kind.TRAIN: (*blueprint.form(block).specs, target)},
            {ACTIVATION: link.dtype},
        )
        for block in range(blueprint.num_blocks)
    )
    return tuple(layout.slot_bytes for layout in layouts)


def unknown_needs(blueprint: Blueprint) -> Iterator[str]:
    """What methods need but batches do not have, a line each."""
    method, task = blueprint.sections.method.name, blueprint.task
    if blueprint.wanted_views > task.views:
        views = blueprint.wanted_views
        yield f"data.views: got {task.views} with method.name={method}, allowed: {views} or more: it compares views"
    # Patches overlap, so that none of the decoders could put an image together.
    useless = {IMAGE, COLOURS} if blueprint.sections.model.patches else set()
    known = _needables(task).keys() - useless
    needed = frozenset[str]().union(*(blueprint.needs(block) for block in range(blueprint.num_blocks)))
    for name in sorted(needed - known):
        if name in PRETEXT_OF and name not in useless:
            yield f"data.pretext: got none that gives {name!r}, allowed: {PRETEXT_OF[name]}, with method.name={method}"
            continue
        yield f"method.name: got {method}, which needs {name!r}, allowed: methods that need {' or '.join(sorted(known))}"


def _edge(blueprint: Blueprint, stage: int, block: int, link: LinkConfig, batch_size: int) -> Edge:
    task, form = blueprint.task, blueprint.form(block)
    needed = frozenset[str]().union(*(blueprint.needs(later) for later in range(block + 1, blueprint.num_blocks)))
    carried = tuple(sorted(needed))
    known = _needables(task)
    specs = {
        Kind.TRAIN: (*form.specs, *(known[name] for name in carried)),
        Kind.EVALUATE: (*form.specs, task.target, task.ensemble),
    }
    return Edge(stage, carried, batch_size * task.views, specs, {ACTIVATION: link.dtype}, form)


def _needables(task: Task) -> Mapping[str, TensorSpec]:
    """All tensors that a block's method may need besides its input, by name."""
    return {LABELS: task.target, IMAGE: task.input, **{spec.name: spec for spec in task.extras}}
