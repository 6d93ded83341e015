"""Which configurations of a network are refused, and a user's own networks."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from greedypipe.pipeline.networks import NETWORK_NAMES, ModelConfig, activation_shapes, build_network

DIGITS = (1, 8, 8)

OWN_NETWORKS = """
from torch import nn

def two_layers(input_shape, num_classes):
    channels, rows, columns = input_shape
    relu = nn.ReLU()
    network = nn.Sequential()
    network.add_module("stem", nn.Sequential(nn.Flatten(), nn.Linear(channels * rows * columns, 12)))
    network.add_module("act1", relu)
    network.add_module("body", nn.Linear(12, 12))
    network.add_module("act2", relu)
    network.add_module("head", nn.Linear(12, num_classes))
    return network

def not_sequential(input_shape, num_classes):
    return nn.Linear(1, 1)

def too_short(input_shape, num_classes):
    return nn.Sequential(nn.Flatten())

def tied(input_shape, num_classes):
    linear = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), linear, linear)

def broken(input_shape, num_classes):
    raise KeyError("from inside")

constant = 3
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that no other test has imported, with the networks above in its module `nets`."""
    name = f"own_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "nets.py").write_text(OWN_NETWORKS, encoding="utf-8")
    (tmp_path / name / "needs_more.py").write_text("import no_such_dependency\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_custom_networks_children_are_its_layers_and_the_last_its_classifier(own_package: str) -> None:
    network = build_network(ModelConfig(name=f"{own_package}.nets:two_layers"), DIGITS, 5)
    assert [layer.name for layer in network.layers] == ["stem", "act1", "body", "act2"]
    assert network.classifier.name == "head"
    assert activation_shapes((*network.layers, network.classifier), DIGITS)[-1] == (5,)
    assert list(network.state_dict()) == [
        "stem.1.weight",
        "stem.1.bias",
        "body.weight",
        "body.bias",
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nets:not_sequential", "must return an nn.Sequential, got Linear"),
        ("nets:too_short", "must return 2 children or more .* got 1"),
        ("nets:tied", "children '1' and '2' share a parameter"),
        ("nets:missing", "has no function 'missing'"),
        ("nets:constant", "has no function 'constant'"),
        ("missing:two_layers", r"no module 'own_\w+\.missing' on the import path"),
    ],
)
def test_a_custom_network_that_cannot_be_used_is_refused(own_package: str, function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(ModelConfig(name=f"{own_package}.{function}"), DIGITS, 5)


@pytest.mark.parametrize("name", ["no_such_package.module:f", "no_such_module:f"])
def test_a_package_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no module 'no_such_\w+' on"):
        build_network(ModelConfig(name=name), DIGITS, 5)


@pytest.mark.parametrize("name", ["module:", ":function", "a:b:c", "a b:c", ".relative:f"])
def test_a_malformed_custom_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"given as 'package\.module:function', got"):
        build_network(ModelConfig(name=name), DIGITS, 5)


def test_an_error_inside_a_users_code_is_passed_on_as_it_is(own_package: str) -> None:
    with pytest.raises(KeyError, match="from inside"):
        build_network(ModelConfig(name=f"{own_package}.nets:broken"), DIGITS, 5)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        build_network(ModelConfig(name=f"{own_package}.needs_more:f"), DIGITS, 5)


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown network 'vgg9b', nearest is 'vgg8b'") as caught:
        build_network(ModelConfig(name="vgg9b", width=0.5), DIGITS, 10)
    assert all(name in str(caught.value) for name in NETWORK_NAMES)


def test_a_default_written_out_is_not_refused() -> None:
    defaults = ModelConfig(name="mlp").model_dump()
    with torch.device("meta"):
        assert build_network(ModelConfig(**defaults), DIGITS, 10).layers


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 0.0),
        ("width", float("inf")),
        ("width", float("nan")),
        ("depth", 0),
        ("hidden", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("activation", "tanh"),
        ("heads", 3),
    ],
)
def test_values_out_of_range_and_unknown_keys_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        ModelConfig(**{key: value})


def test_every_key_says_what_it_does_and_where_it_has_no_effect() -> None:
    for key, field in ModelConfig.model_fields.items():
        assert field.description
        assert key == "name" or "only" in field.description or "not " in field.description


@pytest.mark.parametrize("key", ["width", "depth", "hidden", "dropout", "activation"])
def test_every_key_changes_the_network(key: str) -> None:
    changed = {"width": 0.5, "depth": 2, "hidden": 16, "dropout": 0.5, "activation": "leaky_relu"}[key]
    name = "mlp" if key in ("depth", "hidden") else "vgg8b"
    with torch.device("meta"):
        default = build_network(ModelConfig(name=name), DIGITS, 10)
        network = build_network(ModelConfig(name=name, **{key: changed}), DIGITS, 10)
    assert repr(network) != repr(default)
