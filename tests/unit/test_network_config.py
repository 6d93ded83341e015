"""Which configurations of a network are refused, and a user's own networks."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from greedypipe.pipeline.networks import MODEL_FAMILY, NETWORK_NAMES, activation_shapes
from greedypipe.pipeline.networks.custom import OwnNetwork

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

def other_arguments(shape):
    return None

def sized(input_shape, num_classes, features):
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.LazyLinear(features)), nn.Linear(features, num_classes))

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
    network = OwnNetwork(name=f"{own_package}.nets:two_layers").build(DIGITS, 5)
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
        ("nets:missing", "has no 'missing'"),
        ("nets:constant", "got int, allowed: a function or class"),
        ("nets:other_arguments", "is called with input_shape, num_classes, which it does not accept"),
        ("missing:two_layers", r"no module 'own_\w+\.missing' on the import path"),
    ],
)
def test_a_custom_network_that_cannot_be_used_is_refused(own_package: str, function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OwnNetwork(name=f"{own_package}.{function}").build(DIGITS, 5)


def test_a_custom_network_gets_its_options(own_package: str) -> None:
    network = OwnNetwork(name=f"{own_package}.nets:sized", options={"features": 7}).build(DIGITS, 5)
    assert activation_shapes(network.layers, DIGITS) == [(7,)]


@pytest.mark.parametrize(
    ("options", "place", "message"),
    [
        ({}, "options.features", "missing"),
        ({"features": 7, "feature": 1}, "options.feature", "did you mean features"),
        ({"features": 7, "num_classes": 3}, "options.num_classes", "from the run itself"),
    ],
)
def test_options_that_a_custom_network_does_not_take_are_refused_before_it_is_built(
    own_package: str, options: dict, place: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        OwnNetwork(name=f"{own_package}.nets:sized", options=options)
    assert [".".join(error["loc"]) for error in caught.value.errors()] == [place]


@pytest.mark.parametrize("name", ["no_such_package.module:f", "no_such_module:f"])
def test_a_package_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no module 'no_such_\w+' on"):
        OwnNetwork(name=name)


@pytest.mark.parametrize("name", ["module:", ":function", "a:b:c", "a b:c", ".relative:f"])
def test_a_malformed_custom_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: 'package\.module:Object'"):
        MODEL_FAMILY.choose({"name": name})


def test_an_error_inside_a_users_code_names_its_file_and_line(own_package: str) -> None:
    with pytest.raises(ValueError, match=r"nets:broken: KeyError: 'from inside' \(.*nets\.py:\d+\)$"):
        OwnNetwork(name=f"{own_package}.nets:broken").build(DIGITS, 5)
    with pytest.raises(ValueError, match=r"needs_more:f: ModuleNotFoundError: .*no_such_dependency.*needs_more\.py:1\)"):
        OwnNetwork(name=f"{own_package}.needs_more:f")


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown network 'vgg9b', nearest is 'vgg8b'") as caught:
        MODEL_FAMILY.choose({"name": "vgg9b", "width": 0.5})
    assert all(name in str(caught.value) for name in NETWORK_NAMES)


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_every_name_of_the_table_is_one_of_its_variant(name: str) -> None:
    assert MODEL_FAMILY.choose({"name": name}).name == name


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("vgg8b", "width", 0.0),
        ("vgg8b", "width", float("inf")),
        ("vgg8b", "width", float("nan")),
        ("mlp", "depth", 0),
        ("mlp", "hidden", 0),
        ("basic_cnn", "dropout", 1.0),
        ("resnet20", "dropout", -0.1),
        ("mlp", "activation", "tanh"),
        ("mlp", "width", 1.0),
        ("vgg8b", "depth", 4),
        ("resnet18", "dropout", 0.5),
        ("mlp", "heads", 3),
    ],
)
def test_values_out_of_range_and_keys_of_others_are_refused(name: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        MODEL_FAMILY.choose({"name": name, key: value})


@pytest.mark.parametrize("name", ["basic_cnn", "vgg8b", "resnet20", "mlp"])
def test_every_key_of_every_variant_changes_the_network(name: str) -> None:
    changed = {"width": 0.5, "depth": 2, "hidden": 16, "dropout": 0.5, "activation": "leaky_relu", "padding": "circular"}
    # Backward passes and patches are built around it.
    keys = MODEL_FAMILY.variants[name].model_fields.keys() - {"name", "backward", "patches"}
    with torch.device("meta"):
        networks = {key: repr(MODEL_FAMILY.choose({"name": name, key: changed[key]}).build(DIGITS, 10)) for key in keys}
        default = repr(MODEL_FAMILY.choose({"name": name}).build(DIGITS, 10))
    assert [key for key, network in networks.items() if network == default] == []
