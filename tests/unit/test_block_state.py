"""A block is evaluated without a trace, and goes on bit for bit where it was saved, under the network's names."""

import copy
import io
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline.block import Block
from greedypipe.pipeline.networks import ModelConfig
from greedypipe.pipeline.optimizer import AdamConfig, OptimizerConfig, SgdConfig
from tests.unit.tiny import (
    CPU,
    DROPOUT,
    MLP,
    RESNET,
    VGG,
    batch,
    differing,
    flat,
    head,
    make_block,
    make_blocks,
    make_blueprint,
    method,
    train,
)

WITH_STATISTICS = head("mlp_aux")


def saved_and_loaded(block: Block) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
@pytest.mark.parametrize("index", [0, 1])
def test_predict_runs_layers_and_head_in_evaluation_mode(model: ModelConfig, index: int) -> None:
    block = make_block(index, model=model, head=WITH_STATISTICS)
    train(block, range(2))
    layers, head = copy.deepcopy(([layer.module for layer in block.layers], block.method.head))
    x = block.precision.canonical(batch(block, 5)[0])
    with torch.no_grad():
        expected = nn.Sequential(*layers).eval()(x)
        logits = head.eval()(expected)
    assert not differing(block.predict(x), (expected, logits))
    assert torch.equal(block.pass_through(x), expected)
    assert not any(tensor.requires_grad for tensor in block.predict(x))


@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
@pytest.mark.parametrize("index", [0, 1])
def test_evaluation_changes_no_state_and_no_later_bit(model: ModelConfig, index: int) -> None:
    undisturbed, block = (make_block(index, model=model, head=WITH_STATISTICS) for _ in range(2))
    for step in range(4):
        before = copy.deepcopy(block.state_dict())
        x, _ = batch(block, 100 + step)
        block.predict(x)
        block.pass_through(x)
        assert not differing(before, block.state_dict())
        assert not differing(train(block, range(step, step + 1)), train(undisturbed, range(step, step + 1)))
    assert not differing(block.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize("index", [0, 1])
def test_evaluation_between_forward_and_learn_changes_no_bit(index: int) -> None:
    undisturbed, block = (make_block(index, model=DROPOUT, head=WITH_STATISTICS) for _ in range(2))
    for step in range(2):
        x, given = batch(block, step)
        block.forward(x, given)
        block.predict(x + 1)
        block.learn()
    train(undisturbed, range(2))
    assert not differing(block.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("model", "optimizer", "loss"),
    [
        (MLP, SgdConfig(lr=0.05, nesterov=True, schedule="step", step_epochs=1), "cross_entropy"),
        (DROPOUT, AdamConfig(name="adam", lr=0.01, schedule="multistep", milestones=(1,)), "predsim"),
        (DROPOUT, AdamConfig(name="adamw", lr=0.01, clip_norm=0.5, warmup_steps=2), "reconstruction"),
        (VGG, SgdConfig(lr=0.05, schedule="cosine", warmup_steps=2), "cross_entropy"),
        (VGG, SgdConfig(lr=0.05), "none"),
    ],
    ids=["mlp-sgd", "dropout-adam", "dropout-adamw", "vgg-cosine", "vgg-none"],
)
def test_a_loaded_block_goes_on_bit_for_bit(index: int, model: ModelConfig, optimizer: OptimizerConfig, loss: str) -> None:
    saved, resumed = (
        make_block(index, model=model, optimizer=optimizer, method=method(loss), head=WITH_STATISTICS) for _ in range(2)
    )
    train(saved, range(3))
    state = saved_and_loaded(saved)
    train(resumed, range(50, 51))
    resumed.load_state_dict(state)
    assert not differing(resumed.state_dict(), saved.state_dict())
    torch.manual_seed(12345)
    resumed_trace = train(resumed, range(3, 6))
    assert not differing(resumed_trace, train(saved, range(3, 6)))
    assert not differing(resumed.state_dict(), saved.state_dict())
    assert (resumed.step, resumed.learning_rate) == (6, saved.learning_rate)


def test_a_state_from_disk_holds_nothing_of_the_block_that_was_saved() -> None:
    block = make_block()
    train(block, range(2))
    state = saved_and_loaded(block)
    before = copy.deepcopy(state)
    train(block, range(2, 4))
    assert not differing(state, before)
    assert differing(block.state_dict(), before)


def test_the_layout_of_parameters_and_momentum_survives_loading() -> None:
    block, other = make_block(model=VGG), make_block(model=VGG)
    train(block, range(2))
    other.load_state_dict(saved_and_loaded(block))
    maps = [leaf for leaf in flat(other.state_dict()).values() if isinstance(leaf, Tensor) and leaf.dim() == 4]
    assert len(maps) >= 4
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in maps)


def test_layer_state_is_the_networks_and_trains_with_it() -> None:
    blueprint = make_blueprint()
    blocks = [blueprint.build_block(index, CPU) for index in range(2)]
    for block in blocks:
        train(block, range(2))
    assert not differing(blocks[0].layer_state() | blocks[1].layer_state(), blueprint.network.state_dict())


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=lambda model: model.name)
def test_the_blocks_together_have_the_names_of_the_ordinary_network(model: ModelConfig, blocks: int) -> None:
    blueprint = make_blueprint(blocks, model=model)
    names = [list(blueprint.build_block(index, CPU).layer_state()) for index in range(blocks)]
    assert list(chain.from_iterable(names)) == list(blueprint.network.state_dict())


def test_parameters_are_counted_without_and_with_the_head() -> None:
    first, last = make_blocks(2)
    hidden = 16 * 16 + 3 * 16
    assert (first.num_parameters, last.num_parameters) == (64 * 16 + 3 * 16 + hidden, 2 * hidden)
    assert first.num_head_parameters == 16 * 8 + 8 + 8 * 10 + 10
    assert last.num_head_parameters == 16 * 10 + 10
