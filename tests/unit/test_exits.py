"""What heads can do alone, on logits whose answers are known."""

import pytest
import torch

from greedypipe.pipeline.exits import Exits, calibration_error, collect, early_exit, exit_costs, fit_temperatures
from greedypipe.pipeline.task import Classification
from tests.unit.tiny import DIGITS, make_blocks, train

TASK = Classification((1, 8, 8), 3)


def exits(temperature: float, samples: int = 4000) -> Exits:
    """Two heads that know the right probabilities, the second one better; their logits are scaled by `temperature`."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (samples,), generator=generator)
    logits = []
    for strength in (1.0, 3.0):
        noise = torch.randn(samples, 3, generator=generator)
        # Class means at distance `strength` under unit noise: the log-likelihoods are strength * x, up to a constant.
        logits.append(strength * (strength * torch.nn.functional.one_hot(labels, 3) + noise) * temperature)
    return Exits(TASK, torch.stack(logits), labels)


def test_temperatures_are_found_and_make_confidences_fit() -> None:
    overconfident = exits(temperature=4.0)
    found = fit_temperatures(overconfident)
    assert found == pytest.approx([4.0, 4.0], rel=0.1)
    before, after = calibration_error(overconfident, [1.0, 1.0]), calibration_error(overconfident, found)
    assert before[0] > 0.1 and all(late < min(0.03, early) for late, early in zip(after, before, strict=True))
    assert fit_temperatures(exits(temperature=1.0)) == pytest.approx([1.0, 1.0], rel=0.1)


def test_accuracies_are_those_of_the_heads() -> None:
    first, second = [[2.0, 0.0]] * 4, [[0.0, 1.0], [0.0, 1.0], [1.5, 0.0], [0.0, 1.0]]
    found = Exits(TASK, torch.tensor([first, second]), torch.tensor([1, 1, 0, 0]))
    assert found.accuracies == [0.5, 0.75]
    # 2^0 * 2 against 2^1 * 1: a tie, which goes to the first class; the third sample is of class 0 with either head.
    assert found.ensemble_accuracy == 0.5


def test_confident_samples_leave_early_and_nobody_leaves_above_one() -> None:
    found, costs = exits(temperature=1.0), [0.3, 1.1]
    nobody, everybody, some = (early_exit(found, [1.0, 1.0], costs, threshold) for threshold in (1.01, 0.0, 0.8))
    assert nobody.accuracy == found.accuracies[1] and nobody.cost == pytest.approx(1.1) and nobody.shares == [0, 1]
    assert everybody.accuracy == found.accuracies[0] and everybody.cost == pytest.approx(0.3)
    assert 0.3 < some.cost < 1.1 and sum(some.shares) == pytest.approx(1)
    confidence = found.logits[0].softmax(1).max(1).values
    assert some.shares[0] == pytest.approx(float((confidence >= 0.8).double().mean()))


def test_heads_are_collected_from_a_network_and_cost_more_the_later_they_stand() -> None:
    blocks = make_blocks(2)
    train(blocks[0], range(2))
    images, labels = torch.randn(5, *DIGITS), torch.arange(5)
    found = collect(blocks, [(images[:3], labels[:3]), (images[3:], labels[3:])])
    x, first = blocks[0].predict(images)
    assert torch.allclose(found.logits[0], first) and torch.allclose(found.logits[1], blocks[1].predict(x)[1])
    assert torch.equal(found.labels, labels)
    # mlp of 64-16-16-16-16-10 with a head 16-8-10 in the middle; twice as many operations as weights, per sample.
    layers, head, rest = 64 * 16 + 16 * 16, 16 * 8 + 8 * 10, 2 * 16 * 16 + 16 * 10
    expected = [(layers + head) / (layers + rest), (layers + head + rest) / (layers + rest)]
    assert exit_costs(blocks, images) == pytest.approx(expected)
