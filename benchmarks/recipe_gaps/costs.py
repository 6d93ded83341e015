"""What a recipe costs, counted and not timed: multiply-adds of training, and bytes between blocks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.batch import ACTIVATION
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.operations import operations
from greedypipe.pipeline.reference import Loaded, train
from greedypipe.workers.data.source import BatchSource, LoadedBatch
from greedypipe.workers.links.messages import Kind, MessageLayout

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cost:
    """Per sample of a training batch.

    Attributes:
        macs: Multiply-adds of matrix products and convolutions, forward and backward, of all blocks and heads.
        forward_bytes: Of activations, over all cuts between blocks, as `link.dtype` and `codec` send them.
        back_bytes: Of feedback, over all cuts, at most: a method may send some rows alone.
        age: Batches by which the oldest feedback is late; 0 where nothing comes back.
    """

    macs: float
    forward_bytes: float
    back_bytes: float
    age: int


def cost_of(config: str, overrides: Sequence[str]) -> dict[str, float]:
    """Trains a few batches in this process and counts. Blocks."""
    plan = make_plan(load_config(config or None, overrides), 1)
    source = BatchSource(plan.config.data, 0, plan.data)
    loaded = [source.training_batch(number) for number in range(2)]
    blocks = _blocks(plan)
    age = max((block.timing.lag for block in blocks), default=0)
    steady, more = age + 1, 2
    # What comes before feedback arrives, and the end of the stream, are in both.
    counts = [operations(partial(train, _blocks(plan), _stream(loaded, batches))) for batches in (steady, steady + more)]
    rows = len(loaded[0].labels)
    return asdict(
        Cost(
            macs=(counts[1] - counts[0]) / 2 / more / rows,
            forward_bytes=sum(_activation_bytes(plan, index, rows) for index in range(len(blocks) - 1)),
            back_bytes=sum(_feedback_bytes(plan, index, rows) for index in range(1, len(blocks))),
            age=age,
        )
    )


def _stream(loaded: Sequence[LoadedBatch], batches: int) -> list[Loaded]:
    return [(one.images, one.labels, one.extras) for one in itertools.islice(itertools.cycle(loaded), batches)]


def _blocks(plan: Plan) -> list[Block]:
    return [plan.blueprint.build_block(index, CPU) for index in range(plan.blueprint.num_blocks)]


def _activation_bytes(plan: Plan, index: int, rows: int) -> float:
    specs = plan.blueprint.form(index).specs
    layout = MessageLayout(rows, {Kind.TRAIN: specs}, {ACTIVATION: plan.config.link.dtype})
    return sum(layout.encoding_of(spec).size_bytes(spec, spec.rows_of(rows)) for spec in specs) / rows


def _feedback_bytes(plan: Plan, index: int, rows: int) -> float:
    found = 0.0
    for back in plan.blueprint.sends(index):
        itemsize = (back.dtype or plan.blueprint.precision.activation_dtype).itemsize
        found += math.prod(back.shape) * itemsize / (1 if back.per_row else rows)
    return found
