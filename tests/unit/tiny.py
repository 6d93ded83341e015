"""Tiny networks cut into blocks, batches for them, and the comparison of what they have learned."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.heads import HEAD_FAMILY, build_head
from greedypipe.pipeline.methods import METHOD_FAMILY
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.networks.cifar_resnet import CifarResnetConfig
from greedypipe.pipeline.networks.plain import MlpConfig
from greedypipe.pipeline.networks.vgg import VggConfig
from greedypipe.pipeline.optimizer import SgdConfig
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.sections import Sections, TrainingConfig
from greedypipe.pipeline.site import Shapes, Site
from greedypipe.pipeline.task import Classification

CPU = torch.device("cpu")
DIGITS = (1, 8, 8)
RGB = (3, 16, 16)
CLASSES = 10
ROWS = 6
STEPS = 6
"""Of every block over the run, two epochs of half as many."""

MLP = MlpConfig(depth=4, hidden=16)
DROPOUT = MlpConfig(depth=4, hidden=16, dropout=0.5)
VGG = VggConfig(width=0.1)
RESNET = CifarResnetConfig(name="resnet20", width=0.5)

SECTIONS = Sections(
    MLP,
    PartitionConfig(blocks=2),
    HEAD_FAMILY.choose({"name": "mlp", "hidden": 8}),
    CrossEntropy.Config(),
    SgdConfig(lr=0.05),
    TrainingConfig(epochs=2),
)


def make_blueprint(blocks: int = 2, images: tuple[int, int, int] = DIGITS, **sections: Any) -> Blueprint:
    """`SECTIONS` but for those given, cut evenly into `blocks` blocks."""
    partition = sections.pop("partition", PartitionConfig(blocks=blocks))
    return Blueprint(replace(SECTIONS, partition=partition, **sections), Classification(images, CLASSES), STEPS // 2)


def make_blocks(blocks: int = 2, images: tuple[int, int, int] = DIGITS, **sections: Any) -> list[Block]:
    """All blocks of a blueprint of their own."""
    blueprint = make_blueprint(blocks, images, **sections)
    return [blueprint.build_block(index, CPU) for index in range(blueprint.num_blocks)]


def make_block(index: int = 0, blocks: int = 2, images: tuple[int, int, int] = DIGITS, **sections: Any) -> Block:
    """One block of a blueprint of its own."""
    return make_blueprint(blocks, images, **sections).build_block(index, CPU)


def method(name: str, **keys: Any) -> Any:
    """A section `method`."""
    return METHOD_FAMILY.choose({"name": name, **keys})


def head(name: str, **keys: Any) -> Any:
    """A section `head`."""
    return HEAD_FAMILY.choose({"name": name, **keys})


def make_site(output: tuple[int, ...], classes: int = CLASSES, images: tuple[int, int, int] = DIGITS, **own: Any) -> Site:
    """The place of an inner block with this activation; `own` replaces further attributes."""
    site = Site(
        index=0,
        num_blocks=2,
        shapes=Shapes(output, output),
        task=Classification(images, classes),
        layers=(),
        later_layers=(),
        classifier=None,
        make_head=partial(build_head, SECTIONS.head),
    )
    return replace(site, **own)


def batch(block: Block, step: int = 0) -> tuple[Tensor, Batch]:
    """Input, and what else the block is given, of one step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS, *block.shapes.input, generator=generator)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    return x, Batch(step, labels, {IMAGE: torch.randn(ROWS, *DIGITS, generator=generator)})


def loss_of(block: Block) -> Tensor:
    """The loss of the batch that the block has just forwarded; it makes a step."""
    loss, _ = block.learn()
    assert loss is not None
    return loss


def train(block: Block, steps: range) -> list[Tensor]:
    """Trains on the batches of the steps; returns activations and losses, in order."""
    seen = []
    for step in steps:
        seen += [block.forward(*batch(block, step)).clone(), loss_of(block)]
    return seen


def learned(blocks: list[Block]) -> dict[str, Tensor]:
    """A copy of all parameters and statistics, heads included."""
    return {
        f"{block.index}/{name}": value.clone()
        for block in blocks
        for name, value in {**block.layer_state(), **block.method.state_dict()}.items()
    }


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """Everything in nested dictionaries and sequences, under where it stands."""
    if isinstance(state, dict | list | tuple):
        entries = state.items() if isinstance(state, dict) else enumerate(state)
        return {name: leaf for key, value in entries for name, leaf in flat(value, f"{path}/{key}").items()}
    return {path: state}


def differing(one: Any, other: Any) -> list[str]:
    """Where two nested states are not equal bit for bit."""
    left, right = flat(one), flat(other)
    assert left.keys() == right.keys()
    return [name for name, value in left.items() if not _equal(value, right[name])]


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other
