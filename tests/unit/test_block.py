"""A block learns from its local loss alone, hands on what it had before, and goes on bit for bit where it was saved."""

import copy
import io
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.block import Block, Shapes
from pipeline.build import Blueprint, Sections, Task, TrainingConfig
from pipeline.heads import HeadConfig
from pipeline.losses import CrossEntropy, LossConfig
from pipeline.networks import Layer, ModelConfig
from pipeline.optimizer import OptimizerConfig, build_optimizer, build_schedule
from pipeline.partition import PartitionConfig
from pipeline.precision import Precision

CPU = torch.device("cpu")
DIGITS = (1, 8, 8)
CLASSES = 10
ROWS = 6

MLP = ModelConfig(name="mlp", depth=4, hidden=16)
VGG = ModelConfig(name="vgg8b", width=0.1)
RESNET = ModelConfig(name="resnet20", width=0.5)
DROPOUT = ModelConfig(name="mlp", depth=4, hidden=16, dropout=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_blueprint(model: ModelConfig = MLP, blocks: int = 2, **sections: Any) -> Blueprint:
    chosen = Sections(
        model,
        PartitionConfig(blocks=blocks),
        sections.get("head", HeadConfig(name="mlp", hidden=8)),
        sections.get("loss", LossConfig()),
        sections.get("optimizer", OptimizerConfig(lr=0.05)),
        sections.get("training", TrainingConfig(epochs=2)),
    )
    return Blueprint(chosen, Task(sections.get("images", DIGITS), CLASSES, steps_per_epoch=4))


def make_block(index: int = 0, model: ModelConfig = MLP, **sections: Any) -> Block:
    return make_blueprint(model, **sections).build_block(index, CPU)


def batch(block: Block, step: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, labels and, where the block wants it, the image of one step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS, *block.shapes.input, generator=generator)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    return x, labels, torch.randn(ROWS, *DIGITS, generator=generator) if block.needs_image else None


def train(block: Block, steps: range) -> list[Tensor]:
    """Activations and losses of the steps, in order."""
    seen = []
    for step in steps:
        x, labels, image = batch(block, step)
        seen += [block.forward(x).clone(), block.learn(labels, image)]
    return seen


def parameters_of(block: Block) -> list[nn.Parameter]:
    """Of layers and loss."""
    return [*chain.from_iterable(layer.module.parameters() for layer in block.layers), *block.loss.parameters()]


def copies_of(block: Block) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters_of(block)]


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


def saved_and_loaded(block: Block) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def dropout_block(index: int = 0, seed: int = 0) -> Block:
    """A block of dropout alone: given ones, its activation shows the mask."""
    loss = CrossEntropy(nn.Linear(64, CLASSES))
    config = OptimizerConfig()
    optimizer = build_optimizer(config, loss.parameters())
    return Block(
        index,
        layers=(Layer("dropout", "dropout", nn.Dropout(0.5)),),
        classifier=None,
        loss=loss,
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer, 4, 8),
        precision=Precision("fp32", channels_last=False),
        shapes=Shapes((64,), (64,)),
        clip_norm=0.0,
        steps=8,
        seed=seed,
        device=CPU,
    )


def masks(block: Block, steps: int = 3) -> list[Tensor]:
    seen = []
    for _ in range(steps):
        seen.append(block.forward(torch.ones(ROWS, 64)) != 0)
        block.learn(torch.zeros(ROWS, dtype=torch.int64))
    return seen


# What a step does


@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=lambda model: model.name)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_learning_changes_all_parameters_of_the_block_and_its_loss_and_nothing_of_other_blocks(
    model: ModelConfig, index: int
) -> None:
    blueprint = make_blueprint(model, blocks=3)
    blocks = [blueprint.build_block(position, CPU) for position in range(3)]
    others = [block for block in blocks if block.index != index]
    before, states = copies_of(blocks[index]), copy.deepcopy([block.state_dict() for block in others])
    train(blocks[index], range(1))
    assert not any(torch.equal(old, new) for old, new in zip(before, parameters_of(blocks[index]), strict=True))
    assert not differing(states, [block.state_dict() for block in others])


@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=lambda model: model.name)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_forward_is_the_layers_one_after_the_other_before_the_update(model: ModelConfig, index: int) -> None:
    block = make_block(index, model, blocks=3)
    x, labels, _ = batch(block)
    layers = copy.deepcopy([layer.module for layer in block.layers])
    activation = block.forward(x)
    expected = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    for layer in layers:
        expected = layer(expected)
    assert activation.shape == (ROWS, *block.shapes.output)
    assert torch.equal(activation, expected)
    block.learn(labels)
    assert torch.equal(activation, expected), "learning must leave the activation that is being sent alone"


def test_the_activation_has_no_graph() -> None:
    block = make_block()
    activation = block.forward(batch(block)[0])
    assert not activation.requires_grad
    assert activation.grad_fn is None


@pytest.mark.parametrize("model", [MLP, DROPOUT, VGG, RESNET, ModelConfig(name="basic_cnn", width=0.1)], ids=str)
@pytest.mark.parametrize("blocks", [1, 3])
def test_nothing_writes_into_the_input(model: ModelConfig, blocks: int) -> None:
    blueprint = make_blueprint(model, blocks)
    for index in range(blocks):
        block = blueprint.build_block(index, CPU)
        x, labels, _ = batch(block)
        x = block.precision.canonical(x)
        before = x.clone()
        block.forward(x)
        block.learn(labels)
        block.predict(x)
        block.hand_on(x)
        assert torch.equal(x, before)


def test_no_gradient_flows_into_the_input() -> None:
    block = make_block(1)
    x, labels, _ = batch(block)
    x.requires_grad_()
    block.forward(x)
    block.learn(labels)
    assert x.grad is None


@pytest.mark.parametrize(
    ("index", "loss"),
    [(0, "cross_entropy"), (1, "predsim"), (1, "reconstruction"), (1, "reconstruction_only"), (2, "predsim")],
)
@pytest.mark.parametrize("model", [MLP, VGG], ids=lambda model: model.name)
def test_gradients_are_those_of_the_local_loss_alone(model: ModelConfig, index: int, loss: str) -> None:
    block = make_block(index, model, blocks=3, loss=LossConfig(name=loss))
    x, labels, image = batch(block)
    layers, criterion = copy.deepcopy(([layer.module for layer in block.layers], block.loss))
    expected_loss = criterion(nn.Sequential(*layers)(block.precision.canonical(x)), labels, image)
    wanted = [*chain.from_iterable(layer.parameters() for layer in layers), *criterion.parameters()]
    expected = torch.autograd.grad(expected_loss, wanted)
    block.forward(x)
    assert torch.equal(block.learn(labels, image), expected_loss)
    assert all(torch.equal(got.grad, want) for got, want in zip(parameters_of(block), expected, strict=True))


def test_gradients_do_not_add_up_over_steps() -> None:
    block = make_block(optimizer=OptimizerConfig(lr=1e-30, weight_decay=0.0))
    gradients = []
    for _ in range(2):
        x, labels, _ = batch(block)
        block.forward(x)
        block.learn(labels)
        gradients.append([parameter.grad.clone() for parameter in parameters_of(block)])
    assert not differing(*gradients)


def test_learn_returns_the_loss_before_the_update_without_a_graph() -> None:
    block = make_block(1)
    x, labels, _ = batch(block)
    activation = block.forward(x)
    expected = nn.functional.cross_entropy(block.loss.head(activation), labels)
    loss = block.learn(labels)
    assert torch.equal(loss, expected)
    assert (loss.shape, loss.dtype, loss.requires_grad) == ((), torch.float32, False)


def test_a_block_learns_its_batch_by_heart() -> None:
    block = make_block(optimizer=OptimizerConfig(lr=0.1))
    x, labels, _ = batch(block)
    losses = []
    for _ in range(20):
        block.forward(x)
        losses.append(float(block.learn(labels)))
    assert losses[-1] < 0.2 * losses[0]


def test_learn_without_forward_is_our_mistake() -> None:
    block = make_block()
    _, labels, _ = batch(block)
    with pytest.raises(AssertionError, match="without forward"):
        block.learn(labels)
    train(block, range(1))
    with pytest.raises(AssertionError, match="without forward"):
        block.learn(labels)


def update_norm(clip_norm: float, lr: float = 0.5) -> float:
    block = make_block(optimizer=OptimizerConfig(lr=lr, momentum=0.0, weight_decay=0.0, clip_norm=clip_norm))
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
    block = make_block(loss=LossConfig(name="none"), optimizer=OptimizerConfig(lr=0.1, weight_decay=0.1))
    layers = [parameter.clone() for layer in block.layers for parameter in layer.module.parameters()]
    head = [parameter.clone() for parameter in block.loss.parameters()]
    train(block, range(3))
    assert not differing(layers, [parameter for layer in block.layers for parameter in layer.module.parameters()])
    assert not any(torch.equal(*pair) for pair in zip(head, block.loss.parameters(), strict=True))


def test_without_labels_only_the_head_depends_on_them() -> None:
    states = []
    for shift in (0, 1):
        block = make_block(loss=LossConfig(name="reconstruction_only"))
        for step in range(3):
            x, labels, image = batch(block, step)
            block.forward(x)
            block.learn((labels + shift) % CLASSES, image)
        states.append(copy.deepcopy(block.state_dict()))
    assert not differing(states[0]["layers"], states[1]["layers"])
    assert differing(states[0]["loss"], states[1]["loss"])


def test_the_schedule_advances_once_per_step_and_the_budget_ends() -> None:
    block = make_block(optimizer=OptimizerConfig(lr=1.0, schedule="step", step_epochs=1, gamma=0.5))
    seen = []
    for step in range(8):
        seen.append((block.step, block.learning_rate, block.finished))
        train(block, range(step, step + 1))
    assert seen == [(step, 1.0 if step < 4 else 0.5, False) for step in range(8)]
    assert (block.step, block.total_steps, block.finished) == (8, 8, True)


# Randomness


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
        assert torch.equal(other.forward(torch.ones(ROWS, 64)) != 0, expected)


def test_what_other_blocks_do_between_steps_changes_nothing() -> None:
    alone = make_block(1, DROPOUT)
    train(alone, range(4))
    blueprint = make_blueprint(DROPOUT)
    other, block = (blueprint.build_block(index, CPU) for index in range(2))
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
        block = make_block(index, DROPOUT)
        for step in range(3):
            x, labels, _ = batch(block, step)
            block.forward(x)
            torch.rand(draws)
            block.learn(labels)
        states.append(block.state_dict())
    assert not differing(*states)


# Evaluation


@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
@pytest.mark.parametrize("index", [0, 1])
def test_predict_runs_layers_and_head_in_evaluation_mode(model: ModelConfig, index: int) -> None:
    block = make_block(index, model)
    train(block, range(2))
    layers, head = copy.deepcopy(([layer.module for layer in block.layers], block.loss.head))
    x = block.precision.canonical(batch(block, 5)[0])
    with torch.no_grad():
        expected = nn.Sequential(*layers).eval()(x)
        logits = head.eval()(expected)
    assert not differing(block.predict(x), (expected, logits))
    assert torch.equal(block.hand_on(x), expected)
    assert not any(tensor.requires_grad for tensor in block.predict(x))


@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
@pytest.mark.parametrize("index", [0, 1])
def test_evaluation_changes_no_state_and_no_later_bit(model: ModelConfig, index: int) -> None:
    undisturbed, block = make_block(index, model), make_block(index, model)
    for step in range(4):
        before = copy.deepcopy(block.state_dict())
        x, _, _ = batch(block, 100 + step)
        block.predict(x)
        block.hand_on(x)
        assert not differing(before, block.state_dict())
        assert not differing(train(block, range(step, step + 1)), train(undisturbed, range(step, step + 1)))
    assert not differing(block.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize("index", [0, 1])
def test_evaluation_between_forward_and_learn_changes_no_bit(index: int) -> None:
    head = HeadConfig(name="mlp_aux")  # it has batch normalisation
    undisturbed, block = make_block(index, DROPOUT, head=head), make_block(index, DROPOUT, head=head)
    for step in range(2):
        x, labels, _ = batch(block, step)
        block.forward(x)
        block.predict(x + 1)
        block.learn(labels)
    train(undisturbed, range(2))
    assert not differing(block.state_dict(), undisturbed.state_dict())


# Precision and memory layout


def test_bf16_computes_and_hands_on_bf16_and_keeps_everything_else_in_fp32() -> None:
    block = make_block(1, VGG, blocks=3, training=TrainingConfig(precision="bf16"))
    activation, loss = train(block, range(1))
    assert activation.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    handed_on, logits = block.predict(activation.new_zeros(ROWS, *block.shapes.input))
    assert (handed_on.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    kept = [leaf for leaf in flat(block.state_dict()).values() if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    assert all(parameter.grad.dtype == torch.float32 for parameter in parameters_of(block))


def test_bf16_is_fp32_up_to_rounding() -> None:
    exact, rounded = (
        make_block(1, VGG, blocks=3, training=TrainingConfig(precision=precision)) for precision in ("fp32", "bf16")
    )
    for left, right in zip(train(exact, range(1)), train(rounded, range(1)), strict=True):
        assert torch.allclose(left, right.float(), rtol=0.05, atol=0.1)
        assert not torch.equal(left, right.float())


@pytest.mark.parametrize(("channels_last", "layout"), [(True, torch.channels_last), (False, torch.contiguous_format)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_and_weights_have_the_layout_asked_for(
    channels_last: bool, layout: torch.memory_format, precision: str
) -> None:
    training = TrainingConfig(channels_last=channels_last, precision=precision)
    block = make_block(0, VGG, training=training, head=HeadConfig(name="cnn"))
    activation, _ = train(block, range(1))
    handed_on, _ = block.predict(batch(block)[0])
    maps = [activation, handed_on, *(parameter for parameter in parameters_of(block) if parameter.dim() == 4)]
    assert len(maps) > 4
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in maps)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("index", "images"), [(0, (3, 16, 16)), (0, DIGITS), (5, DIGITS)], ids=["rgb", "one channel", "one position"]
)
def test_the_layout_in_which_the_input_arrives_changes_no_bit(
    index: int, images: tuple[int, int, int], channels_last: bool
) -> None:
    states = []
    for layout in (torch.contiguous_format, torch.channels_last):
        block = make_block(index, VGG, blocks=7, images=images, training=TrainingConfig(channels_last=channels_last))
        x, labels, _ = batch(block)
        activation = block.forward(torch.empty_like(x, memory_format=layout).copy_(x)).clone()
        block.learn(labels)
        states.append((activation, block.state_dict()))
    assert not differing(*states)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 8, 8), (4, 8, 1, 1), (1, 8, 4, 4), (4, 8), (4, 5, 8)], ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
def test_canonical_strides_follow_from_the_shape_alone(shape: tuple[int, ...], channels_last: bool) -> None:
    """Also where a dimension of size 1 makes both layouts the same memory: kernels are chosen by strides."""
    precision = Precision("fp32", channels_last)
    layouts = (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (torch.contiguous_format,)
    arrivals = [torch.empty(shape, memory_format=layout) for layout in layouts]
    expected = torch.empty(shape, memory_format=precision.memory_format(len(shape)))
    assert [precision.canonical(x).stride() for x in arrivals] == [expected.stride()] * len(arrivals)


def test_canonical_does_not_copy_what_has_the_layout_already() -> None:
    x = torch.empty(4, 3, 8, 8, memory_format=torch.channels_last)
    assert Precision("fp32", True).canonical(x).data_ptr() == x.data_ptr()
    assert Precision("fp32", False).canonical(x).data_ptr() != x.data_ptr()


# State


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("model", "optimizer", "loss"),
    [
        (MLP, OptimizerConfig(lr=0.05, nesterov=True, schedule="step", step_epochs=1), "cross_entropy"),
        (DROPOUT, OptimizerConfig(name="adam", lr=0.01, schedule="multistep", milestones=(1,)), "predsim"),
        (DROPOUT, OptimizerConfig(name="adamw", lr=0.01, clip_norm=0.5, warmup_steps=2), "reconstruction"),
        (VGG, OptimizerConfig(lr=0.05, schedule="cosine", warmup_steps=2), "cross_entropy"),
        (VGG, OptimizerConfig(lr=0.05), "none"),
    ],
    ids=["mlp-sgd", "dropout-adam", "dropout-adamw", "vgg-cosine", "vgg-none"],
)
def test_a_loaded_block_goes_on_bit_for_bit(
    index: int, model: ModelConfig, optimizer: OptimizerConfig, loss: str
) -> None:
    def build() -> Block:
        head = HeadConfig(name="mlp_aux")  # its batch normalisation has statistics to save
        return make_block(index, model, optimizer=optimizer, loss=LossConfig(name=loss), head=head)

    saved, resumed = build(), build()
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


def test_a_state_that_was_saved_does_not_move_with_the_block() -> None:
    block = make_block()
    train(block, range(2))
    state = saved_and_loaded(block)
    kept = copy.deepcopy(state)
    other = make_block()
    other.load_state_dict(state)
    train(other, range(2, 4))
    reloaded = make_block()
    reloaded.load_state_dict(kept)
    train(reloaded, range(2, 4))
    assert not differing(other.state_dict(), reloaded.state_dict())


def test_the_layout_of_parameters_survives_loading() -> None:
    block, other = make_block(0, VGG), make_block(0, VGG)
    train(block, range(2))
    other.load_state_dict(saved_and_loaded(block))
    tensors = [leaf for leaf in flat(other.state_dict()).values() if isinstance(leaf, Tensor) and leaf.dim() == 4]
    assert len(tensors) >= 4, "weights and momentum"
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=lambda model: model.name)
def test_the_blocks_together_have_the_names_of_the_ordinary_network(model: ModelConfig, blocks: int) -> None:
    blueprint = make_blueprint(model, blocks)
    names = [list(blueprint.build_block(index, CPU).layer_state()) for index in range(blocks)]
    assert list(chain.from_iterable(names)) == list(blueprint.network.state_dict())


def test_layer_state_is_the_networks_and_trains_with_it() -> None:
    blueprint = make_blueprint(MLP)
    blocks = [blueprint.build_block(index, CPU) for index in range(2)]
    for block in blocks:
        train(block, range(2))
    together = blocks[0].layer_state() | blocks[1].layer_state()
    assert not differing(together, blueprint.network.state_dict())


def test_parameters_are_counted_without_and_with_the_head() -> None:
    first, last = make_block(0), make_block(1)
    hidden = 16 * 16 + 3 * 16
    assert (first.num_parameters, last.num_parameters) == (64 * 16 + 3 * 16 + hidden, 2 * hidden)
    assert first.num_head_parameters == 16 * 8 + 8 + 8 * 10 + 10
    assert last.num_head_parameters == 16 * 10 + 10
