"""Feedback to and from stages of several processes: what one process would give, within rounding."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline import reference
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.methods import METHODS
from greedypipe.workers.data.source import BatchSource
from tests.unit.replicated import CPU, Replicated
from tests.unit.tiny import differing, learned

BARE = (
    "data.name=digits",
    "data.batch_size=24",
    "model.name=tests.multiprocess.bare_network:build",
    "head.name=linear",
    "partition.blocks=3",
    "training.epochs=2",
    "optimizer.lr=0.05",
    "auxiliary.name=sgd",
    "auxiliary.lr=0.001",
)
"""Without batch normalisation and dropout, so that replicas differ from one process by rounding alone."""
ROUNDING = {"rtol": 1e-3, "atol": 2e-6}
WITH_FEEDBACK = [name for name, one in METHODS.items() if one.reach is not Reach.NONE]
QUICK = ("late_chain", "last_gradient", "dni", "man")
"""One of each kind: gradients of inputs, of outputs, what is learned about kept outputs, and parameters."""
slow = pytest.mark.slow
QUIET = {"dtp": ["method.noise=0", "optimizer.lr=0.001"]}
"""Where replicas would draw other random numbers."""
STEPS = range(57, 63)
"""The third of these batches is the last of an epoch: 22 rows, which three replicas do not share equally."""


class PerSample(nn.GroupNorm):
    """A normalisation that does not see which rows a replica has."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)


@pytest.fixture(autouse=True)
def _synthesisers_do_without_batch_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn, "BatchNorm2d", PerSample)


def settings(name: str, *more: str) -> list[str]:
    return [*BARE, f"method.name={name}", *QUIET.get(name, []), *more]


def alone(overrides: Sequence[str], batches: range = STEPS) -> list[Block]:
    plan = make_plan(load_config(None, overrides), 1)
    blocks = [plan.blueprint.build_block(index, CPU) for index in range(3)]
    source = BatchSource(plan.config.data, plan.config.training.seed)
    reference.train(blocks, [(batch.images, batch.labels) for batch in map(source.training_batch, batches)])
    return blocks


def shared(overrides: Sequence[str], replicas: Sequence[int], folder: Path) -> list[Block]:
    run = Replicated.of(overrides, replicas)
    run.train(STEPS, folder)
    return run.learned()


def assert_close(got: Sequence[Block], expected: Sequence[Block]) -> None:
    left, right = learned(got), learned(expected)
    assert list(left) == list(right)
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], **ROUNDING, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in WITH_FEEDBACK])
def test_a_shared_stage_in_the_middle_changes_nothing_but_rounding(name: str, tmp_path: Path) -> None:
    overrides = settings(name)
    assert_close(shared(overrides, (1, 2, 1), tmp_path), alone(overrides))


@pytest.mark.parametrize(
    ("name", "replicas", "delay"),
    [
        ("late_chain", (2, 3, 1), "1"),
        ("ddg", (1, 3, 2), "[1,2]"),
        pytest.param("late_chain", (3, 2, 2), "[0,2]", marks=slow),
        pytest.param("local_critic", (3, 1, 2), "2", marks=slow),
        pytest.param("man", (3, 2, 2), "1", marks=slow),
        pytest.param("features_replay", (2, 2, 3), "0", marks=slow),
    ],
)
def test_so_do_differing_numbers_of_replicas(name: str, replicas: tuple[int, ...], delay: str, tmp_path: Path) -> None:
    """One to many, many to one, and many to many, with shares of 7, 7 and 8 rows in flight."""
    overrides = settings(name, f"feedback.delay={delay}")
    assert_close(shared(overrides, replicas, tmp_path), alone(overrides))


@pytest.mark.parametrize(
    ("name", "first", "then"),
    [
        ("ddg", (1, 3, 1), (1, 3, 1)),
        ("late_chain", (1, 2, 1), (2, 1, 3)),
        pytest.param("late_chain", (1, 2, 1), (1, 2, 1), marks=slow),
        pytest.param("dni", (2, 3, 1), (1, 1, 1), marks=slow),
        pytest.param("man", (1, 2, 1), (3, 1, 2), marks=slow),
    ],
)
def test_a_run_goes_on_with_what_was_on_its_way(
    name: str, first: tuple[int, ...], then: tuple[int, ...], tmp_path: Path
) -> None:
    """At the same number of replicas bit for bit."""
    overrides = settings(name, "feedback.delay=2")
    begun, resumed = Replicated.of(overrides, first), Replicated.of(overrides, then)
    begun.train(range(STEPS.start, STEPS.stop - 3), tmp_path, stream_ends=False)
    resumed.load(begun.states())
    resumed.train(range(STEPS.stop - 3, STEPS.stop), tmp_path)
    assert_close(resumed.learned(), alone(overrides))
    if first == then:
        assert not differing(learned(resumed.learned()), learned(shared(overrides, first, tmp_path)))
