"""A blueprint gives every block the same start, however the network is cut and in whatever order blocks are built."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.method import Method, TaskLoss
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.methods.none import Untrained
from greedypipe.pipeline.methods.predsim import PredSim
from greedypipe.pipeline.methods.reconstruction import Reconstruction
from greedypipe.pipeline.methods.reconstruction_only import ReconstructionOnly
from greedypipe.pipeline.networks import ModelConfig
from greedypipe.pipeline.networks.custom import OwnNetwork
from greedypipe.pipeline.optimizer import AdamConfig, SgdConfig
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.sections import TrainingConfig
from tests.unit.tiny import (
    CPU,
    DIGITS,
    MLP,
    RESNET,
    VGG,
    differing,
    head,
    loss_of,
    make_block,
    make_blocks,
    make_blueprint,
    method,
    train,
)


def layer_weights(blocks: int = 2, **sections: Any) -> dict[str, Tensor]:
    """Of all blocks together, once they are built."""
    return {name: value for block in make_blocks(blocks, **sections) for name, value in block.layer_state().items()}


# Initial weights


@pytest.mark.parametrize("model", [MLP, VGG], ids=lambda model: model.name)
@pytest.mark.parametrize("blocks", [2, 4])
def test_initial_weights_do_not_depend_on_the_partition(model: ModelConfig, blocks: int) -> None:
    assert not differing(layer_weights(1, model=model), layer_weights(blocks, model=model))


@pytest.mark.parametrize(
    "sections",
    [
        {"head": head("cnn")},
        {"method": method("reconstruction")},
        {"optimizer": AdamConfig(name="adam")},
        {"training": TrainingConfig(precision="bf16", channels_last=False, epochs=3)},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_initial_weights_do_not_depend_on_other_sections(sections: dict[str, Any]) -> None:
    assert not differing(layer_weights(), layer_weights(**sections))


def test_initial_weights_do_not_depend_on_what_was_drawn_before() -> None:
    torch.manual_seed(1)
    first = make_blueprint()
    first_block = first.build_block(0, CPU)
    torch.manual_seed(2)
    second = make_blueprint()
    torch.rand(5)
    second_block = second.build_block(0, CPU)
    assert not differing(first.network.state_dict(), second.network.state_dict())
    assert not differing(first_block.method.state_dict(), second_block.method.state_dict())


def test_a_head_follows_from_seed_and_index_alone() -> None:
    alone = make_block(2, 4)
    forwards = make_blocks(4)
    blueprint = make_blueprint(4)
    backwards = [blueprint.build_block(index, CPU) for index in reversed(range(4))][::-1]
    assert not differing(alone.method.state_dict(), forwards[2].method.state_dict())
    assert not differing(*([block.method.state_dict() for block in blocks] for blocks in (forwards, backwards)))


def test_a_head_does_not_depend_on_the_partition() -> None:
    """Block 0 and 1 of either cut hand on 16 features."""
    for index in (0, 1):
        of_three, of_four = (make_block(index, blocks).method for blocks in (3, 4))
        assert not differing(of_three.state_dict(), of_four.state_dict())


@pytest.mark.parametrize("loss", ["predsim", "reconstruction", "reconstruction_only", "none"])
def test_a_head_does_not_depend_on_the_loss(loss: str) -> None:
    plain, other = make_block(), make_block(method=method(loss))
    assert not differing(plain.method.head.state_dict(), other.method.head.state_dict())


def test_heads_of_different_blocks_differ() -> None:
    first, second = (make_block(index, 4).method.head.state_dict() for index in (1, 2))
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights_and_other_heads() -> None:
    one, other = (make_block(training=TrainingConfig(seed=seed)) for seed in (0, 1))
    for ours, theirs in ((one.layer_state(), other.layer_state()), (one.method.state_dict(), other.method.state_dict())):
        drawn = [name for name, value in ours.items() if value.is_floating_point() and value.std() > 0]
        assert any(name.endswith("weight") for name in drawn)
        assert not any(torch.equal(ours[name], theirs[name]) for name in drawn)


def test_seeds_are_the_same_everywhere_and_differ_in_every_part() -> None:
    assert derive_seed(0, "network") == 4694126669496371513
    seeds = [
        derive_seed(*parts)
        for parts in [(0,), (1,), ("0",), (0, 0), (0, "head", 1), (0, "head", 11), (0, "head", 1, 1), (0, "step", 1)]
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


# Shapes and length


@pytest.mark.parametrize("model", [MLP, VGG, RESNET], ids=lambda model: model.name)
@pytest.mark.parametrize("blocks", [1, 4])
def test_shapes_are_those_of_the_activations(model: ModelConfig, blocks: int) -> None:
    blueprint = make_blueprint(blocks, model=model)
    assert blueprint.shapes[0].input == DIGITS
    assert all(left.output == right.input for left, right in pairwise(blueprint.shapes))
    x = torch.randn(3, *DIGITS)
    for block in make_blocks(blocks, model=model):
        assert block.shapes == blueprint.shapes[block.index]
        x = block.forward(x, Batch(0, torch.zeros(3, dtype=torch.int64)))
        assert x.shape == (3, *block.shapes.output)


@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_blocks_have_the_layers_of_the_network_in_order(blocks: int) -> None:
    blueprint = make_blueprint(blocks, model=VGG)
    layers = [layer for index in range(blocks) for layer in blueprint.layers_of(index)]
    assert blueprint.num_blocks == blocks
    assert len(layers) == len(blueprint.network.layers)
    assert all(one is other for one, other in zip(layers, blueprint.network.layers, strict=True))


def test_every_block_gets_the_steps_of_all_epochs() -> None:
    blueprint = make_blueprint(training=TrainingConfig(epochs=3))
    assert blueprint.total_steps == 9
    assert [block.total_steps for block in make_blocks(training=TrainingConfig(epochs=3))] == [9, 9]


def test_the_schedule_counts_epochs_in_steps() -> None:
    block = make_block(optimizer=SgdConfig(lr=1.0, schedule="step", step_epochs=1, gamma=0.5))
    rates = []
    for step in range(6):
        rates.append(block.learning_rate)
        train(block, range(step, step + 1))
    assert rates == [1.0] * 3 + [0.5] * 3


# Losses and heads


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cross_entropy", CrossEntropy),
        ("predsim", PredSim),
        ("reconstruction", Reconstruction),
        ("reconstruction_only", ReconstructionOnly),
        ("none", Untrained),
    ],
)
def test_all_blocks_but_the_last_have_the_local_loss_asked_for(name: str, kind: type[Method]) -> None:
    blueprint = make_blueprint(3, method=method(name))
    blocks = [blueprint.build_block(index, CPU) for index in range(3)]
    assert [type(block.method) for block in blocks] == [kind, kind, TaskLoss]
    wants_image = kind in (Reconstruction, ReconstructionOnly)
    assert ["image" in blueprint.needs(index) for index in range(3)] == [wants_image, wants_image, False]
    assert [blueprint.needs(index) for index in range(3)] == [block.method.needs for block in blocks]


def test_the_last_block_learns_through_the_networks_classifier() -> None:
    blueprint = make_blueprint(2)
    assert blueprint.build_block(1, CPU).method.head is blueprint.network.classifier.module


def test_a_single_block_learns_through_the_classifier_whatever_the_loss() -> None:
    blueprint = make_blueprint(1, method=method("none"))
    block = blueprint.build_block(0, CPU)
    assert block.method.head is blueprint.network.classifier.module
    assert block.method.trains_layers


@pytest.mark.parametrize("chosen", ["linear", "mlp", "mlp_aux", "mlp_sr", "cnn"])
def test_the_head_section_decides_the_heads(chosen: str) -> None:
    sizes = {
        name: make_block(model=VGG, head=head(name)).num_head_parameters
        for name in ("linear", "mlp", "mlp_aux", "mlp_sr", "cnn")
    }
    assert list(sizes.values()).count(sizes[chosen]) == 1


# Impossible combinations


def test_more_blocks_than_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"partition\.blocks: got 5, but the network has 4 layers with parameters"):
        make_blueprint(5)


def test_a_network_that_does_not_take_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="'0' does not accept input of shape"):
        make_blueprint(1, model=OwnNetwork(name=f"{__name__}:for_larger_images"))


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", 0), ("seed", -1), ("precision", "fp16"), ("channels_last", "maybe"), ("steps", 5)]
)
def test_impossible_training_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        TrainingConfig(**{key: value})


# A custom network, whose layers the blueprint has not written

CUT_BEHIND_THE_STEM = PartitionConfig(blocks=2, boundaries=("1",))


def for_larger_images(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 9), nn.Flatten(), nn.Linear(1024, num_classes))


def relu_begins_a_block(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    return nn.Sequential(stem, nn.ReLU(inplace=True), nn.Linear(12, 12), nn.Linear(12, num_classes))


def relu_inside_the_first_layer(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(12, 12), nn.ReLU(inplace=True))
    return nn.Sequential(stem, body, nn.Linear(12, num_classes))


def relu_behind_a_view(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    body = nn.Sequential(nn.Unflatten(1, (3, 2, 2)), nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1))
    return nn.Sequential(stem, body, nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes)))


def relu_behind_a_view_in_another_layer(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    view, relu, convolution = nn.Unflatten(1, (3, 2, 2)), nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1)
    return nn.Sequential(stem, view, relu, convolution, nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes)))


def relu_behind_dropout(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    body = nn.Sequential(nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(12, 12))
    return nn.Sequential(stem, body, nn.Linear(12, num_classes))


@pytest.mark.parametrize(
    "network",
    [
        relu_begins_a_block,
        relu_inside_the_first_layer,
        relu_behind_a_view,
        relu_behind_a_view_in_another_layer,
        relu_behind_dropout,
    ],
    ids=lambda network: network.__name__,
)
def test_a_block_never_writes_into_its_input(network: Any) -> None:
    """Its input may lie in a slot that is read again."""
    block = make_block(1, partition=CUT_BEHIND_THE_STEM, model=OwnNetwork(name=f"{__name__}:{network.__name__}"))
    x = torch.randn(5, 12)
    before = x.clone()
    given = Batch(0, torch.arange(5))
    for run in (partial(block.forward, batch=given), block.pass_through, block.predict):
        run(x)
        assert torch.equal(x, before), "the input was changed"


def test_only_the_operations_on_the_input_lose_their_in_place_form() -> None:
    model = OwnNetwork(name=f"{__name__}:relu_inside_the_first_layer")
    blueprint = make_blueprint(partition=CUT_BEHIND_THE_STEM, model=model)
    blueprint.build_block(1, CPU)
    assert [relu.inplace for relu in blueprint.network.layers[1].module.modules() if isinstance(relu, nn.ReLU)] == [
        False,
        True,
    ]


def test_a_custom_network_is_cut_and_trained_as_any_other() -> None:
    model = OwnNetwork(name=f"{__name__}:relu_begins_a_block")
    blueprint = make_blueprint(model=model)
    assert [[layer.name for layer in blueprint.layers_of(index)] for index in range(2)] == [["0", "1"], ["2"]]
    x = torch.randn(5, *DIGITS)
    for block in make_blocks(model=model):
        x = block.forward(x, Batch(0, torch.arange(5)))
        assert loss_of(block).isfinite()
