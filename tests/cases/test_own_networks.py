"""Networks of people's own: they work, or one line says why not before anything starts."""

import sys
from pathlib import Path

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.networks.drawn import draw_network

MODULE = "newcomer_networks"
WRONG = {
    "no_arguments": "which it does not accept",
    "not_sequential": "must return an nn.Sequential, got Plain",
    "wrong_classes": "got outputs float32 [4, 7] of an activation float32 [4, 32], allowed: floating-point numbers [4, 10]",
    "wrong_shape": "layer '1' does not accept input of shape (64,)",
    "two_outputs": "layer '2' returned a tuple, allowed: a tensor",
    "raises": "RuntimeError: my own bug",
}


@pytest.fixture(autouse=True)
def on_the_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])


def plan(function: str) -> Plan:
    return make_plan(load_config(None, [f"model.name={MODULE}:{function}", "partition.blocks=2", "head.name=linear"]), 1)


@pytest.mark.parametrize("function", ["batch_norm", "lazy", "softmax"])
def test_a_network_that_can_be_trained(function: str) -> None:
    assert plan(function).blueprint.num_blocks == 2


def test_lazy_layers_get_the_same_weights_in_every_process() -> None:
    model = plan("lazy").config.model
    first, second = (draw_network(model, (1, 8, 8), 10, seed=3).network.state_dict() for _ in range(2))
    assert all(first[name].equal(second[name]) for name in first) and first["1.weight"].shape == (32, 64)


@pytest.mark.parametrize("function", WRONG)
def test_one_that_cannot_is_one_line(function: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(function)
    (line,) = str(caught.value).splitlines()
    assert WRONG[function] in line
