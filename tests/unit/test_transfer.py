"""A network's saved blocks become the blocks of another cut: everything follows its name."""

import copy
from typing import Any

import pytest
import torch

from greedypipe.pipeline.block import Block
from greedypipe.pipeline.optimizer import AdamConfig, OptimizerConfig, SgdConfig
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.recut import transferred_state
from tests.unit.tiny import MLP, VGG, differing, make_blocks, train

OPTIMIZERS = [SgdConfig(lr=0.05), AdamConfig(name="adam", lr=0.01), AdamConfig(name="adamw", lr=0.01)]


def trained(blocks: int, steps: int = 3, **sections: Any) -> list[Block]:
    made = make_blocks(blocks, **sections)
    for block in made:
        train(block, range(steps))
    return made


def momentum(state: dict[str, Any]) -> dict[str, Any]:
    """What the optimizer keeps, by the parameter's name."""
    return {name: state["optimizer"]["state"].get(number) for number, name in enumerate(state["parameters"])}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.name)
@pytest.mark.parametrize("model", [MLP, VGG], ids=lambda one: one.name)
def test_with_the_same_cut_it_is_the_saved_state(model: Any, optimizer: OptimizerConfig) -> None:
    saved, resumed = trained(3, model=model, optimizer=optimizer), make_blocks(3, model=model, optimizer=optimizer)
    for block, other in zip(saved, resumed, strict=True):
        state, head_is_fresh = transferred_state(other, copy.deepcopy([one.state_dict() for one in saved]))
        assert not head_is_fresh
        other.load_state_dict(state)
        assert not differing(other.state_dict(), block.state_dict())
        assert not differing(train(other, range(3, 5)), train(block, range(3, 5)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.name)
@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (3, 1), (1, 3)])
def test_another_cut_keeps_layers_and_what_the_optimizer_knows_of_them(
    before: int, after: int, optimizer: OptimizerConfig
) -> None:
    saved, resumed = trained(before, optimizer=optimizer), make_blocks(after, optimizer=optimizer)
    states = [block.state_dict() for block in saved]
    layers = {name: value for state in states for name, value in state["layers"].items()}
    kept = {name: entry for state in states for name, entry in momentum(state).items() if "method." not in name}
    heads = {state["last_layer"] for state in states}
    for block in resumed:
        state, head_is_fresh = transferred_state(block, states)
        block.load_state_dict(state)
        now = block.state_dict()
        assert not differing(now["layers"], {name: layers[name] for name in now["layers"]})
        follows = {name: entry for name, entry in momentum(now).items() if "method." not in name}
        assert follows and not differing(follows, {name: kept[name] for name in follows})
        assert head_is_fresh == (now["last_layer"] not in heads)
        assert block.step == 3
        assert all(torch.isfinite(value).all() for value in train(block, range(3, 5)))


def test_a_fresh_head_has_neither_momentum_nor_the_weights_of_another() -> None:
    saved, (first, _) = trained(4), make_blocks(2)
    moved = make_blocks(2, partition=PartitionConfig(blocks=2, boundaries=("fc2",)))[0]
    assert first.layers[-1].name != moved.layers[-1].name
    states = [block.state_dict() for block in saved]
    without = [state | {"last_layer": "elsewhere"} for state in states]
    initial = {name: value.clone() for name, value in moved.method.state_dict().items()}
    state, head_is_fresh = transferred_state(moved, without)
    moved.load_state_dict(state)
    assert head_is_fresh and not differing(moved.method.state_dict(), initial)
    fresh = [entry for name, entry in momentum(moved.state_dict()).items() if name.startswith("method.")]
    assert fresh and all(not entry["momentum_buffer"].any() for entry in fresh)


def test_of_blocks_that_have_drifted_the_least_advanced_counts() -> None:
    saved = make_blocks(4)
    for block, steps in zip(saved, (5, 3, 4, 2), strict=True):
        train(block, range(steps))
    steps = []
    for block in make_blocks(2):
        state, _ = transferred_state(block, [one.state_dict() for one in saved])
        block.load_state_dict(state)
        steps.append(block.step)
    assert steps == [3, 2]


def test_another_network_is_refused() -> None:
    saved = [block.state_dict() for block in trained(2)]
    with pytest.raises(ValueError, match=r"another shape: \(16, 64\) in the checkpoint, \(12, 64\)"):
        transferred_state(make_blocks(2, model=MLP.model_copy(update={"hidden": 12}))[0], saved)
    with pytest.raises(ValueError, match="it belongs to another network"):
        transferred_state(make_blocks(2, model=MLP.model_copy(update={"depth": 6}))[1], saved)
