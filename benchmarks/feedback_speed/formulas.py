"""What a method's turn costs: by formula, and as counted with torch's formulas.

All in floating-point operations of convolutions and matrix products, for one batch: element-wise work, normalisation and
optimizers are not counted. The formulas take a backward pass for twice its forward pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.methods.dni import SyntheticGradients
from greedypipe.pipeline.methods.man import LooksAhead
from greedypipe.pipeline.methods.overlap_weights import OverlapThroughWeights
from greedypipe.pipeline.operations import operations


@dataclass(frozen=True)
class Parts:
    """Operations of one forward pass of a batch through the parts of a block.

    Attributes:
        layers: f in the formulas below.
        head: h.
        synthesiser: s.
        inverse: i; 0 where the block has none, as the first has not.
        next_layer: a, the first layer of the next block.
        next_block: n, layers and head of the next block, where the method has a copy of it.
    """

    layers: int
    head: int
    synthesiser: int = 0
    inverse: int = 0
    next_layer: int = 0
    next_block: int = 0


@dataclass(frozen=True)
class Formula:
    """Cost of a turn of an inner block."""

    words: str
    cost: Callable[[Parts], float]


_TURN = Formula("3f + 3h", lambda p: 3 * p.layers + 3 * p.head)
_REPLAYED = Formula("4f + 3h", lambda p: 4 * p.layers + 3 * p.head)
_SYNTHESISED = Formula("3f + 4s + 3h", lambda p: 3 * p.layers + 4 * p.synthesiser + 3 * p.head)
_TWICE = Formula("6f + 3h", lambda p: 6 * p.layers + 3 * p.head)
_AHEAD = Formula("3f + 5a + 3h", lambda p: 3 * p.layers + 5 * p.next_layer + 3 * p.head)

FORMULAS: Mapping[str, Formula] = {
    "cross_entropy": _TURN,
    "ddg": _TURN,
    "fdg": _TURN,
    "features_replay": _REPLAYED,
    "dfa": _REPLAYED,
    "dtp": Formula(
        "5f + 5i + 3h (first block 4f + 3h)",
        lambda p: (5 if p.inverse else 4) * p.layers + 5 * p.inverse + 3 * p.head,
    ),
    "dni": _SYNTHESISED,
    "cdni": _SYNTHESISED,
    "local_critic": Formula("3f + 4h", lambda p: 3 * p.layers + 4 * p.head),
    "last_gradient": Formula("6f + 6h", lambda p: 6 * p.layers + 6 * p.head),
    "overlap": _TWICE,
    "overlap_weights": Formula("3f + 3h + 2n", lambda p: 3 * p.layers + 3 * p.head + 2 * p.next_block),
    "late_chain": _TWICE,
    "man": _AHEAD,
    "man_pp": _AHEAD,
}
"""By `method.name`, at a delay of 1 or more. 3h is that of the head: a probe, where the layers do not learn from it. Last
blocks cost 3f + 3h with every method."""


@dataclass(frozen=True)
class Cost:
    """Operations per batch of every stage: by formula, and counted by torch."""

    formula: list[float]
    counted: list[float]


def cost_of(plan: Plan) -> Cost:
    """Runs every block of a plan on noise, on copies of its layers, for one turn more than its feedback takes. Blocks."""
    trial = plan.blueprint.for_trials()
    blocks = [trial.build_block(index, torch.device("cpu")) for index in range(trial.num_blocks)]
    rows = plan.config.data.batch_size
    batch = Batch(0, torch.randint(trial.task.outputs, (rows,)), {IMAGE: torch.rand(rows, *trial.task.input.shape)})
    formula = FORMULAS[plan.config.method.name]
    by_formula = [(_TURN if block.site.is_last else formula).cost(parts_of(block, rows)) for block in blocks]
    counted = [count(trial, block, batch) for block in blocks]
    hosted = [plan.placement.blocks_of(stage) for stage in range(plan.placement.num_stages)]
    return Cost(*([sum(costs[block] for block in stage) for stage in hosted] for costs in (by_formula, counted)))


def parts_of(block: Block, rows: int) -> Parts:
    """Forward passes of a block's parts, counted by torch."""
    method, x = block.method, torch.rand(rows, *block.shapes.input)
    h, labels = block.pass_through(x), torch.zeros(rows, dtype=torch.int64)
    later = block.site.later_layers[:1]
    next_layer = operations(lambda: later[0].module(h)) if later else 0
    copies = 2 if isinstance(method.head, LooksAhead) else 0
    return Parts(
        layers=operations(lambda: block.pass_through(x)),
        head=operations(lambda: method.head(h)) - copies * next_layer,
        synthesiser=operations(lambda: method.synthesiser(h, labels)) if isinstance(method, SyntheticGradients) else 0,
        inverse=operations(lambda: inverse(h)) if (inverse := getattr(method, "inverse", None)) else 0,
        next_layer=next_layer,
        next_block=operations(lambda: method.copy(h)) if isinstance(method, OverlapThroughWeights) else 0,
    )


def count(trial: Blueprint, block: Block, batch: Batch) -> int:
    """Operations of a turn in which feedback on an earlier batch is read; everything but shapes is noise."""
    rows = len(batch.labels)
    x = block.precision.canonical(torch.rand(rows, *block.shapes.input))
    feedback = trial.zero_feedback(block.index, rows, block.device)

    def turn() -> None:
        block.forward(x, batch)
        block.learn(feedback)

    for _ in range(block.timing.lag + 1):
        turn()
    return operations(turn)
