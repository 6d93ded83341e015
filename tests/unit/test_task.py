"""The task: one place for loss, metric and ensemble rule."""

import torch
from torch.nn import functional

from greedypipe.pipeline import reference
from greedypipe.pipeline.exits import collect
from greedypipe.pipeline.task import Classification
from tests.unit.test_reference import batches
from tests.unit.tiny import CLASSES, RGB, VGG, make_blocks

TASK = Classification(RGB, CLASSES)


def test_the_loss_is_cross_entropy_in_fp32_for_the_batch_or_for_each_sample() -> None:
    logits, labels = torch.randn(6, CLASSES), torch.arange(6)
    assert torch.equal(TASK.loss(logits, labels), functional.cross_entropy(logits, labels))
    each = TASK.loss(logits.bfloat16(), labels, "none")
    assert each.shape == (6,) and each.dtype == torch.float32
    assert torch.allclose(each.mean(), TASK.loss(logits, labels), rtol=0.02)


def test_a_hit_is_the_largest_logit_at_the_label_for_one_head_or_several() -> None:
    logits = torch.eye(CLASSES)[[3, 1, 2]]
    assert TASK.hits(logits, torch.tensor([3, 1, 0])).tolist() == [True, True, False]
    assert TASK.hits(torch.stack([logits, -logits]), torch.tensor([3, 1, 0])).tolist() == [
        [True, True, False],
        [False, False, True],
    ]


def test_the_ensemble_weighs_every_head_twice_as_much_as_the_one_before() -> None:
    first, second, third = torch.randn(3, 4, CLASSES, generator=torch.Generator().manual_seed(0))
    before = first.clone()
    ensemble = torch.zeros(4, *TASK.ensemble.shape)
    for index, logits in enumerate((first, second, third)):
        ensemble = TASK.add_to_ensemble(ensemble, logits, index)
    assert torch.equal(ensemble, first + 2 * second + 4 * third)
    assert torch.equal(ensemble.argmax(1), ((first + 2 * second + 4 * third) / 7).argmax(1))
    assert torch.equal(first, before), "logits stay as they were"


def test_exits_agree_with_the_oracle() -> None:
    blocks, held_out = make_blocks(4, RGB, model=VGG), batches(3, rows=50)
    reference.train(blocks, batches(6))
    exits = collect(blocks, held_out)
    accuracies, together = reference.evaluate(blocks, held_out)
    assert exits.accuracies == accuracies
    assert exits.ensemble_accuracy == together
