"""A block learns from its local loss alone, and hands on what it had before."""

import copy
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.networks import Layer, ModelConfig
from greedypipe.pipeline.networks.plain import BasicCnnConfig
from greedypipe.pipeline.optimization import Optimization, Optimizations
from greedypipe.pipeline.optimizer import SgdConfig
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.sections import TrainingConfig
from greedypipe.pipeline.site import Shapes, Site
from greedypipe.pipeline.task import Classification
from tests.unit.tiny import (
    CLASSES,
    CPU,
    DROPOUT,
    MLP,
    RESNET,
    RGB,
    ROWS,
    VGG,
    batch,
    differing,
    loss_of,
    make_block,
    make_blocks,
    method,
    train,
)

BASIC_CNN = BasicCnnConfig(width=0.1)


def parameters_of(block: Block) -> list[nn.Parameter]:
    """Of layers and loss."""
    return [*chain.from_iterable(layer.module.parameters() for layer in block.layers), *block.method.parameters()]


def copies_of(block: Block) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters_of(block)]


def name_of(model: ModelConfig) -> str:
    return f"{model.name}-dropout" if model.dropout else model.name


# What a step does


@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=name_of)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_learning_changes_all_parameters_of_the_block_and_its_loss_and_nothing_of_other_blocks(
    model: ModelConfig, index: int
) -> None:
    blocks = make_blocks(3, model=model)
    others = [block for block in blocks if block.index != index]
    before, states = copies_of(blocks[index]), copy.deepcopy([block.state_dict() for block in others])
    train(blocks[index], range(1))
    assert not any(torch.equal(old, new) for old, new in zip(before, parameters_of(blocks[index]), strict=True))
    assert not differing(states, [block.state_dict() for block in others])


@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=name_of)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_forward_is_the_layers_one_after_the_other_before_the_update(model: ModelConfig, index: int) -> None:
    block = make_block(index, 3, RGB, model=model)
    x, given = batch(block)
    layers = copy.deepcopy([layer.module for layer in block.layers])
    activation = block.forward(x, given)
    expected = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    for layer in layers:
        expected = layer(expected)
    assert activation.shape == (ROWS, *block.shapes.output)
    assert torch.equal(activation, expected)
    block.learn()
    assert torch.equal(activation, expected), "learning must leave the activation that is being sent alone"


def test_the_activation_has_no_graph() -> None:
    block = make_block()
    activation = block.forward(*batch(block))
    assert not activation.requires_grad
    assert activation.grad_fn is None


@pytest.mark.parametrize("model", [MLP, DROPOUT, VGG, RESNET, BASIC_CNN], ids=name_of)
@pytest.mark.parametrize("blocks", [1, 3])
def test_nothing_writes_into_the_input(model: ModelConfig, blocks: int) -> None:
    for block in make_blocks(blocks, model=model):
        x, given = batch(block)
        x = block.precision.canonical(x)
        before = x.clone()
        block.forward(x, given)
        block.learn()
        block.predict(x)
        block.pass_through(x)
        assert torch.equal(x, before)


def test_no_gradient_flows_into_the_input() -> None:
    block = make_block(1)
    x, given = batch(block)
    x.requires_grad_()
    block.forward(x, given)
    block.learn()
    assert x.grad is None


@pytest.mark.parametrize(
    ("index", "loss"),
    [(0, "cross_entropy"), (1, "predsim"), (1, "reconstruction"), (1, "reconstruction_only"), (2, "predsim")],
)
@pytest.mark.parametrize("model", [MLP, VGG], ids=name_of)
def test_gradients_are_those_of_the_local_loss_alone(model: ModelConfig, index: int, loss: str) -> None:
    block = make_block(index, 3, model=model, method=method(loss))
    x, given = batch(block)
    layers, criterion = copy.deepcopy(([layer.module for layer in block.layers], block.method))
    x = block.precision.canonical(x)
    expected_loss = criterion.loss(Sample(given.labels, given.extras, input=x, output=nn.Sequential(*layers)(x)))
    wanted = [*chain.from_iterable(layer.parameters() for layer in layers), *criterion.parameters()]
    expected = torch.autograd.grad(expected_loss, wanted)
    block.forward(x, given)
    assert torch.equal(loss_of(block), expected_loss)
    assert not differing([parameter.grad for parameter in parameters_of(block)], expected)


def test_gradients_do_not_add_up_over_steps() -> None:
    block = make_block(optimizer=SgdConfig(lr=1e-30, weight_decay=0.0))
    gradients = []
    for _ in range(2):
        train(block, range(1))
        gradients.append([parameter.grad.clone() for parameter in parameters_of(block)])
    assert not differing(*gradients)


def test_learn_returns_the_loss_before_the_update_without_a_graph() -> None:
    block = make_block(1)
    x, given = batch(block)
    activation = block.forward(x, given)
    expected = nn.functional.cross_entropy(block.method.head(activation), given.labels)
    loss = loss_of(block)
    assert torch.equal(loss, expected)
    assert (loss.shape, loss.dtype, loss.requires_grad) == ((), torch.float32, False)


def test_a_block_learns_its_batch_by_heart() -> None:
    block = make_block(optimizer=SgdConfig(lr=0.1), training=TrainingConfig(epochs=20))
    losses = [float(train(block, range(1))[1]) for _ in range(20)]
    assert losses[-1] < 0.2 * losses[0]


def test_learn_without_forward_is_our_mistake() -> None:
    block = make_block()
    with pytest.raises(AssertionError, match="without forward"):
        block.learn()
    train(block, range(1))
    with pytest.raises(AssertionError, match="without forward"):
        block.learn()


def update_norm(clip_norm: float) -> float:
    block = make_block(optimizer=SgdConfig(lr=0.5, momentum=0.0, weight_decay=0.0, clip_norm=clip_norm))
    before = copies_of(block)
    train(block, range(1))
    pairs = zip(before, copies_of(block), strict=True)
    return sum(float((new - old).pow(2).sum()) for old, new in pairs) ** 0.5


def test_clip_norm_bounds_the_gradient_of_layers_and_head_together() -> None:
    unclipped = update_norm(0.0)
    assert unclipped > 0.1
    assert update_norm(0.01) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert update_norm(1e6) == unclipped


def test_without_a_loss_the_layers_stay_random_and_the_head_learns() -> None:
    block = make_block(method=method("none"), optimizer=SgdConfig(lr=0.1, weight_decay=0.1))
    random = [parameter for layer in block.layers for parameter in layer.module.parameters()]
    layers, head = ([parameter.clone() for parameter in group] for group in (random, block.method.parameters()))
    train(block, range(3))
    assert not differing(layers, random)
    assert all(parameter.grad is None for parameter in random), "no time goes into gradients that nobody uses"
    assert not any(torch.equal(*pair) for pair in zip(head, block.method.parameters(), strict=True))


def test_without_labels_only_the_head_depends_on_them() -> None:
    states = []
    for shift in (0, 1):
        block = make_block(method=method("reconstruction_only"))
        for step in range(3):
            x, given = batch(block, step)
            block.forward(x, replace(given, labels=(given.labels + shift) % CLASSES))
            block.learn()
        states.append(copy.deepcopy(block.state_dict()))
    assert not differing(states[0]["layers"], states[1]["layers"])
    assert any("head" in name for name in differing(states[0]["method"], states[1]["method"]))


def test_the_schedule_advances_once_per_step_and_the_budget_ends() -> None:
    block = make_block(optimizer=SgdConfig(lr=1.0, schedule="step", step_epochs=1, gamma=0.5))
    seen = []
    for step in range(6):
        seen.append((block.step, block.learning_rate, block.finished))
        train(block, range(step, step + 1))
    assert seen == [(step, 1.0 if step < 3 else 0.5, False) for step in range(6)]
    assert (block.step, block.total_steps, block.finished) == (6, 6, True)


# Randomness


def dropout_block(index: int = 0, seed: int = 0) -> Block:
    """A block of dropout alone: given ones, its activation shows the mask."""
    site = Site(
        index=index,
        num_blocks=index + 2,
        shapes=Shapes((64,), (64,)),
        task=Classification((1, 8, 8), CLASSES),
        layers=(Layer("dropout", "dropout", nn.Dropout(0.5)),),
        later_layers=(),
        classifier=None,
        make_head=lambda site: nn.Linear(64, CLASSES),
    )
    method = CrossEntropy(site)
    main = Optimization(SgdConfig(), method.parameters(), steps_per_epoch=4, total_steps=8)
    return Block(site, method, Optimizations(main, {}), Precision("fp32", channels_last=False), seed, CPU)


ONES = Batch(0, torch.zeros(ROWS, dtype=torch.int64))


def masks(block: Block, steps: int = 3) -> list[Tensor]:
    seen = []
    for _ in range(steps):
        seen.append(block.forward(torch.ones(ROWS, 64), ONES) != 0)
        block.learn()
    return seen


def test_dropout_follows_from_seed_index_and_step_alone() -> None:
    torch.manual_seed(1)
    expected = masks(dropout_block(index=3, seed=5))
    torch.manual_seed(2)
    assert not differing(masks(dropout_block(index=3, seed=5)), expected)
    everything = [*expected, *masks(dropout_block(index=4, seed=5)), *masks(dropout_block(index=3, seed=6))]
    assert all(not torch.equal(a, b) for i, a in enumerate(everything) for b in everything[:i])
    assert all(0.3 < mask.float().mean() < 0.7 for mask in everything)


def test_dropout_of_a_step_does_not_depend_on_how_often_the_block_ran_before() -> None:
    expected = masks(dropout_block())[2]
    other = dropout_block()
    masks(other, 2)
    for _ in range(3):
        assert torch.equal(other.forward(torch.ones(ROWS, 64), ONES) != 0, expected)
        other.turn -= 1


def test_what_other_blocks_do_between_steps_changes_nothing() -> None:
    alone = make_block(1, model=DROPOUT)
    train(alone, range(4))
    other, block = make_blocks(2, model=DROPOUT)
    for step in range(4):
        train(other, range(step, step + 1))
        torch.rand(7)
        train(block, range(step, step + 1))
    assert not differing(block.state_dict(), alone.state_dict())


@pytest.mark.parametrize("index", [0, 1])
def test_what_others_draw_between_forward_and_learn_changes_nothing(index: int) -> None:
    """The classifier, head of the last block, has dropout of its own."""
    states = []
    for draws in (0, 5):
        block = make_block(index, model=DROPOUT)
        for step in range(3):
            block.forward(*batch(block, step))
            torch.rand(draws)
            block.learn()
        states.append(block.state_dict())
    assert not differing(*states)
