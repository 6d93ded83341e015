"""The oracle is itself checked: against plain back-propagation, and against each block trained alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from pipeline import reference
from pipeline.block import Block
from pipeline.build import Blueprint, Sections, Task, TrainingConfig
from pipeline.heads import HeadConfig
from pipeline.losses import LossConfig
from pipeline.networks import ModelConfig, build_network
from pipeline.optimizer import OptimizerConfig
from pipeline.partition import PartitionConfig
from pipeline.randomness import derive_seed

CPU = torch.device("cpu")
IMAGE = (3, 16, 16)
CLASSES = 10
STEPS = 5

MLP = ModelConfig(name="mlp", depth=4, hidden=16)
VGG = ModelConfig(name="vgg8b", width=0.1)
DROPOUT = ModelConfig(name="mlp", depth=4, hidden=16, dropout=0.3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build_blocks(model: ModelConfig, count: int, **sections: Any) -> list[Block]:
    chosen = Sections(
        model,
        PartitionConfig(blocks=count),
        HeadConfig(name="mlp", hidden=8),
        sections.get("loss", LossConfig()),
        sections.get("optimizer", OptimizerConfig(lr=0.05)),
        sections.get("training", TrainingConfig(epochs=1)),
    )
    blueprint = Blueprint(chosen, Task(IMAGE, CLASSES, steps_per_epoch=STEPS))
    return [blueprint.build_block(index, CPU) for index in range(count)]


def batches(count: int = STEPS, rows: int = 6, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(rows, *IMAGE, generator=generator), torch.randint(CLASSES, (rows,), generator=generator))
        for _ in range(count)
    ]


def record_inputs(block: Block) -> list[Tensor]:
    """What `block` will have been given, in order."""
    inputs: list[Tensor] = []
    forward = block.forward

    def recording(x: Tensor) -> Tensor:
        inputs.append(x.clone())
        return forward(x)

    block.forward = recording  # type: ignore[method-assign]
    return inputs


def weights(blocks: list[Block]) -> dict[str, Tensor]:
    """Everything that has been learned, heads included."""
    states = [(block.index, {**block.layer_state(), **block.loss.state_dict()}) for block in blocks]
    return {f"{index}/{name}": value for index, state in states for name, value in state.items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def torchs_sgd(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=5e-4, fused=True)


def torchs_adam(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.Adam(parameters, 0.01, fused=True)


@pytest.mark.parametrize(
    ("model", "config", "rule"),
    [
        (MLP, OptimizerConfig(lr=0.05), torchs_sgd),
        (VGG, OptimizerConfig(lr=0.05), torchs_sgd),
        (VGG, OptimizerConfig(name="adam", lr=0.01, weight_decay=0.0), torchs_adam),
    ],
    ids=["mlp-sgd", "vgg-sgd", "vgg-adam"],
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_one_block_is_plain_back_propagation_bit_for_bit(
    model: ModelConfig,
    config: OptimizerConfig,
    rule: Callable[[list[nn.Parameter]], optim.Optimizer],
    channels_last: bool,
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.manual_seed(derive_seed(3, "network"))
    network = build_network(model, IMAGE, CLASSES)
    plain = nn.Sequential(*(layer.module for layer in (*network.layers, network.classifier))).to(memory_format=layout)
    optimizer = rule(list(plain.parameters()))
    expected = []
    for images, labels in batches():
        optimizer.zero_grad()
        loss = functional.cross_entropy(plain(images.contiguous(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()
        expected.append([loss.item()])

    (block,) = build_blocks(
        model, 1, optimizer=config, training=TrainingConfig(seed=3, epochs=1, channels_last=channels_last)
    )
    assert reference.train([block], batches()) == expected
    assert not differing(block.layer_state(), network.state_dict())


@pytest.mark.parametrize("loss", ["cross_entropy", "predsim", "reconstruction"])
@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
def test_every_block_learns_as_it_would_alone_on_what_it_was_given(model: ModelConfig, loss: str) -> None:
    together = build_blocks(model, 4, loss=LossConfig(name=loss))
    recorded = [record_inputs(block) for block in together]
    losses = reference.train(together, batches())
    assert all(torch.equal(seen, images) for seen, (images, _) in zip(recorded[0], batches(), strict=True))
    for index, inputs in enumerate(recorded):
        alone = build_blocks(model, 4, loss=LossConfig(name=loss))[index]
        own_losses = []
        for x, (images, labels) in zip(inputs, batches(), strict=True):
            alone.forward(x)
            own_losses.append(float(alone.learn(labels, images if alone.needs_image else None)))
        assert own_losses == [row[index] for row in losses]
        assert not differing(weights([alone]), weights([together[index]]))


def test_earlier_blocks_do_not_depend_on_later_ones() -> None:
    whole, part = build_blocks(DROPOUT, 4), build_blocks(DROPOUT, 4)[:2]
    losses = reference.train(whole, batches())
    assert reference.train(part, batches()) == [row[:2] for row in losses]
    assert not differing(weights(whole[:2]), weights(part))


def test_training_is_the_same_every_time_and_another_for_another_seed() -> None:
    results = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        blocks = build_blocks(DROPOUT, 2, training=TrainingConfig(seed=seed, epochs=1))
        torch.manual_seed(noise)
        results.append((reference.train(blocks, batches()), weights(blocks)))
    assert results[0][0] == results[1][0]
    assert not differing(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_a_run_may_be_trained_in_parts() -> None:
    whole, parts = build_blocks(DROPOUT, 2), build_blocks(DROPOUT, 2)
    losses = reference.train(whole, batches())
    assert reference.train(parts, batches()[:2]) + reference.train(parts, batches()[2:]) == losses
    assert not differing(weights(whole), weights(parts))


def test_losses_are_one_row_per_batch_with_one_number_per_block() -> None:
    losses = reference.train(build_blocks(MLP, 3), iter(batches(4)))
    assert [len(row) for row in losses] == [3] * 4
    assert all(isinstance(value, float) for row in losses for value in row)


def logits_of(blocks: list[Block], images: Tensor) -> list[Tensor]:
    """Of every head, computed with the bare modules."""
    x, logits = images.contiguous(memory_format=torch.channels_last), []
    with torch.no_grad():
        for block in blocks:
            for layer in block.layers:
                x = layer.module.eval()(x)
            logits.append(block.loss.head.eval()(x))
            for module in (*(layer.module for layer in block.layers), block.loss):
                module.train()
    return logits


@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
def test_accuracies_are_those_of_a_count_sample_by_sample(model: ModelConfig) -> None:
    blocks = build_blocks(model, 3)
    reference.train(blocks, batches(4, rows=20))
    held_out = [*batches(3, rows=20, seed=0), *batches(1, rows=7, seed=1)]  # the last batch is uneven
    correct, together, total = [0, 0, 0], 0, 0
    for images, labels in held_out:
        logits = logits_of(blocks, images)
        for sample, label in enumerate(labels.tolist()):
            scores = [[float(value) for value in head[sample]] for head in logits]
            for index, values in enumerate(scores):
                correct[index] += values.index(max(values)) == label
            sums = [1 * a + 2 * b + 4 * c for a, b, c in zip(*scores, strict=True)]
            together += sums.index(max(sums)) == label
            total += 1
    assert total == 67
    assert reference.evaluate(blocks, held_out) == ([count / total for count in correct], together / total)
    assert len(set(correct)) > 1, "the blocks must differ for this to prove anything"


def test_evaluation_changes_no_weight_and_no_later_step() -> None:
    evaluated, other = build_blocks(DROPOUT, 2), build_blocks(DROPOUT, 2)
    reference.evaluate(evaluated, batches(2, seed=1))
    assert not differing(weights(evaluated), weights(other))
    assert reference.train(evaluated, batches()) == reference.train(other, batches())
    assert not differing(weights(evaluated), weights(other))


def test_the_ensemble_weighs_every_head_twice_as_much_as_the_one_before() -> None:
    first, second, third = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    ensemble = reference.add_to_ensemble(None, first, 0)
    assert torch.equal(ensemble, first)
    ensemble = reference.add_to_ensemble(ensemble, second, 1)
    ensemble = reference.add_to_ensemble(ensemble, third, 2)
    assert torch.equal(ensemble, first + 2 * second + 4 * third)
    assert torch.equal(ensemble.argmax(1), ((first + 2 * second + 4 * third) / 7).argmax(1))


def test_the_ensemble_leaves_the_logits_as_they_were() -> None:
    first, second = torch.ones(2, 3), torch.ones(2, 3)
    reference.add_to_ensemble(reference.add_to_ensemble(None, first, 0), second, 1)
    assert torch.equal(first, torch.ones(2, 3))
    assert torch.equal(second, torch.ones(2, 3))


def test_a_part_of_the_network_weighs_its_heads_by_their_place_in_the_whole() -> None:
    blocks = build_blocks(MLP, 3)
    images, _ = batches(1)[0]
    x = blocks[0].hand_on(images)
    later = reference.add_to_ensemble(None, blocks[1].predict(x)[1], blocks[1].index)
    assert torch.equal(later, 2 * blocks[1].predict(x)[1])
