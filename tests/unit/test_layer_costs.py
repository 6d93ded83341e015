"""The planner measures the run's own blocks, and leaves no trace in them."""

import itertools
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning import layer_costs
from greedypipe.launch.planning.layer_costs import check_boundaries, profile_layers
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import Feedback, Learned
from greedypipe.pipeline.trunk import Trunk
from tests.unit.tiny import CPU, differing

TINY = ("data.name=digits", "data.batch_size=16", "partition.blocks=2")
VGG, MLP = ("model.name=vgg8b", "model.width=0.1"), ("model.name=mlp", "model.hidden=16")
OWN_S, INPUT_GRADIENT_S, HEAD_S = (3.0, 5.0, 1.0, 4.0), (9.0, 2.0, 0.5, 1.0), (1.0, 6.0, 0.25, 0.125)


def plan(*overrides: str, processes: int = 2) -> Plan:
    auto = ("partition.boundaries=auto", "partition.profile_s=0.001")
    return make_plan(load_config(None, [*TINY, *auto, *overrides]), processes)


def learned(made: Plan) -> list[Any]:
    """What all blocks know after a step."""
    x, states = torch.linspace(-1, 1, 6 * 64).view(6, 1, 8, 8), []
    for index in range(2):
        block = made.blueprint.build_block(index, CPU)
        x = block.forward(x, Batch(0, torch.arange(6), {IMAGE: torch.ones(6, 1, 8, 8)}))
        block.learn()
        states.append(block.state_dict())
    return states


def modes(made: Plan) -> list[tuple[bool, bool | None]]:
    """What a block may change of a module besides its numbers."""
    modules = [module for layer in made.blueprint.network.layers for module in layer.module.modules()]
    return [(module.training, getattr(module, "inplace", None)) for module in modules]


@pytest.mark.parametrize("method", ["cross_entropy", "reconstruction", "predsim", "none", "ddg", "man"])
def test_measuring_leaves_the_run_as_it_was_to_the_bit(method: str) -> None:
    overrides = (*VGG, f"method.name={method}", "model.dropout=0.5")
    measured, untouched = plan(*overrides), plan(*overrides)
    profile_layers(measured, CPU)
    assert not differing(measured.blueprint.network.state_dict(), untouched.blueprint.network.state_dict())
    assert modes(measured) == modes(untouched)
    assert not differing(learned(measured), learned(untouched))


def test_it_is_blocks_that_are_measured_each_of_one_or_two_units(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    learn = Block.learn

    def watched(block: Block, feedback: Feedback) -> Learned:
        seen.append(tuple(layer.name for layer in block.layers if layer.has_parameters))
        learned = learn(block, feedback)
        assert learned.loss is not None, "a block that has finished learns nothing"
        return learned

    monkeypatch.setattr(Block, "learn", watched)
    # Two steps are all that the run itself has.
    profile = profile_layers(plan(*VGG, "training.epochs=1", "data.batch_size=719"), CPU)
    expected = {(name,) for name in profile.names} | set(itertools.pairwise(profile.names))
    assert set(seen) == expected
    assert all(seen.count(units) >= 1 + layer_costs.LEAST_ROUNDS for units in expected)


def test_turns_are_measured_with_feedback_on_batches_of_the_lag_before(monkeypatch: pytest.MonkeyPatch) -> None:
    replays: list[int] = []
    run_again = Trunk.run_again
    monkeypatch.setattr(Trunk, "run_again", lambda trunk, x, turn: (replays.append(turn), run_again(trunk, x, turn))[1])
    profile = profile_layers(plan(*VGG, "partition.blocks=4", "method.name=features_replay", "feedback.delay=[1,0,2]"), CPU)
    measured = len(profile.names) - 1 + len(profile.names) - 2
    assert len(replays) >= measured * layer_costs.LEAST_ROUNDS


def block_s(start: int, stop: int) -> float:
    """A block whose units do not know each other."""
    return sum(OWN_S[start:stop]) + sum(INPUT_GRADIENT_S[start + 1 : stop]) + HEAD_S[stop - 1]


def test_the_costs_of_all_blocks_follow_from_those_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(trial: Any) -> float:
        units = [int(layer.name[2:]) - 1 for layer in trial._block.layers]
        return block_s(units[0], units[-1] + 1)

    monkeypatch.setattr(layer_costs._Trial, "seconds", seconds)
    profile = profile_layers(plan(*MLP, "model.depth=4"), CPU)
    assert profile.names == ("fc1", "fc2", "fc3", "fc4")
    for start, stop in itertools.combinations(range(5), 2):
        assert profile.costs.block_s(start, stop) == block_s(start, stop)


def test_a_unit_never_makes_a_block_cheaper_whatever_noise_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_costs._Trial, "seconds", lambda trial: 1.0 / len(trial._block.layers))
    costs = profile_layers(plan(*MLP), CPU).costs
    assert costs.before_s == (0.0,) * 3 and costs.back_propagation_s == 1.0


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_networks_of_any_depth_are_measured(depth: int) -> None:
    made = plan(*MLP, f"model.depth={depth}", "partition.blocks=1", processes=1)
    assert profile_layers(made, CPU).costs.num_units == depth


def test_boundaries_that_are_not_measured_are_refused_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_costs, "_Trial", Mock(side_effect=AssertionError("measured")))
    check_boundaries(plan(*VGG, "partition.boundaries=[conv4]", "partition.profile_s=5"))
    with pytest.raises(ValueError, match="pool2 cannot be judged; layers that can: conv2"):
        check_boundaries(plan(*VGG, "partition.boundaries=[pool2]", "partition.profile_s=5"))
