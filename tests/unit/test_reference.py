"""The oracle is itself checked: against plain back-propagation, and against each block trained alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from greedypipe.pipeline import reference
from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.networks import ModelConfig
from greedypipe.pipeline.optimizer import AdamConfig, OptimizerConfig, SgdConfig
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.sections import TrainingConfig
from tests.unit.tiny import CLASSES, DROPOUT, MLP, RGB, ROWS, VGG, differing, learned, loss_of, make_blocks, method


def batches(count: int = 5, rows: int = ROWS, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(rows, *RGB, generator=generator), torch.randint(CLASSES, (rows,), generator=generator))
        for _ in range(count)
    ]


def record_inputs(block: Block) -> list[Tensor]:
    """What `block` will have been given, in order."""
    inputs: list[Tensor] = []
    forward = block.forward

    def recording(x: Tensor, batch: Batch) -> Tensor:
        inputs.append(x.clone())
        return forward(x, batch)

    block.forward = recording  # type: ignore[method-assign]
    return inputs


def torchs_sgd(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=5e-4, fused=True)


def torchs_adam(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.Adam(parameters, 0.01, fused=True)


@pytest.mark.parametrize(
    ("model", "config", "rule"),
    [
        (MLP, SgdConfig(lr=0.05), torchs_sgd),
        (VGG, SgdConfig(lr=0.05), torchs_sgd),
        (VGG, AdamConfig(name="adam", lr=0.01, weight_decay=0.0), torchs_adam),
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
    network = model.build(RGB, CLASSES)
    plain = nn.Sequential(*(layer.module for layer in (*network.layers, network.classifier))).to(memory_format=layout)
    optimizer = rule(list(plain.parameters()))
    expected = []
    for images, labels in batches():
        optimizer.zero_grad()
        loss = functional.cross_entropy(plain(images.contiguous(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()
        expected.append([loss.item()])

    (block,) = make_blocks(
        1, RGB, model=model, optimizer=config, training=TrainingConfig(seed=3, channels_last=channels_last)
    )
    assert reference.train([block], batches()) == expected
    assert not differing(block.layer_state(), network.state_dict())


@pytest.mark.parametrize("loss", ["cross_entropy", "predsim", "reconstruction"])
@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
def test_every_block_learns_as_it_would_alone_on_what_it_was_given(model: ModelConfig, loss: str) -> None:
    together = make_blocks(4, RGB, model=model, method=method(loss))
    recorded = [record_inputs(block) for block in together]
    losses = reference.train(together, batches())
    assert all(torch.equal(seen, images) for seen, (images, _) in zip(recorded[0], batches(), strict=True))
    for index, inputs in enumerate(recorded):
        alone = make_blocks(4, RGB, model=model, method=method(loss))[index]
        own_losses = []
        for x, (images, labels) in zip(inputs, batches(), strict=True):
            alone.forward(x, Batch(0, labels, {IMAGE: images}))
            own_losses.append(float(loss_of(alone)))
        assert own_losses == [row[index] for row in losses]
        assert not differing(learned([alone]), learned([together[index]]))


def test_earlier_blocks_do_not_depend_on_later_ones() -> None:
    whole, part = make_blocks(4, RGB, model=DROPOUT), make_blocks(4, RGB, model=DROPOUT)[:2]
    losses = reference.train(whole, batches())
    assert reference.train(part, batches()) == [row[:2] for row in losses]
    assert not differing(learned(whole[:2]), learned(part))


def test_training_is_the_same_every_time_and_another_for_another_seed() -> None:
    results = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        blocks = make_blocks(2, RGB, model=DROPOUT, training=TrainingConfig(seed=seed))
        torch.manual_seed(noise)
        results.append((reference.train(blocks, batches()), learned(blocks)))
    assert results[0][0] == results[1][0]
    assert not differing(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_a_run_may_be_trained_in_parts() -> None:
    whole, parts = make_blocks(2, RGB, model=DROPOUT), make_blocks(2, RGB, model=DROPOUT)
    losses = reference.train(whole, batches())
    assert reference.train(parts, batches()[:2]) + reference.train(parts, batches()[2:]) == losses
    assert not differing(learned(whole), learned(parts))


def test_losses_are_one_row_per_batch_with_one_number_per_block() -> None:
    losses = reference.train(make_blocks(3, RGB), iter(batches(4)))
    assert [len(row) for row in losses] == [3] * 4
    assert all(isinstance(value, float) for row in losses for value in row)


def logits_of(blocks: list[Block], images: Tensor) -> list[Tensor]:
    """Of every head, computed with the bare modules."""
    x, logits = images.contiguous(memory_format=torch.channels_last), []
    with torch.no_grad():
        for block in blocks:
            for layer in block.layers:
                x = layer.module.eval()(x)
            logits.append(block.method.head.eval()(x))
            for module in (*(layer.module for layer in block.layers), block.method):
                module.train()
    return logits


@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
def test_accuracies_are_those_of_a_count_sample_by_sample(model: ModelConfig) -> None:
    blocks = make_blocks(3, RGB, model=model)
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
    evaluated, other = make_blocks(2, RGB, model=DROPOUT), make_blocks(2, RGB, model=DROPOUT)
    reference.evaluate(evaluated, batches(2, seed=1))
    assert not differing(learned(evaluated), learned(other))
    assert reference.train(evaluated, batches()) == reference.train(other, batches())
    assert not differing(learned(evaluated), learned(other))
