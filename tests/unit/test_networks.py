"""What every network promises, and the sizes and plans of our own."""

import itertools

import pytest
import torch
from torch import nn

from greedypipe.pipeline.networks import MODEL_FAMILY, NETWORK_NAMES, Layer, Network, activation_shapes

CIFAR = (3, 32, 32)
DIGITS = (1, 8, 8)
SIGNAL = (1, 40)
SMALL = {"width": 0.125}

NUM_LAYERS = {
    "basic_cnn": 7,
    "mlp": 4,
    "vgg8b": 11,
    "vgg11b": 14,
    "vgg11c": 12,
    "vgg11": 13,
    "vgg13": 15,
    "vgg16": 18,
    "vgg19": 21,
    "resnet20": 10,
    "resnet32": 16,
    "resnet56": 28,
    "resnet110": 55,
    "resnet18": 9,
    "resnet34": 17,
    "resnet50": 17,
    "resnet101": 34,
    "resnet152": 51,
    "vit_b_16": 13,
}


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build(name: str, shape: tuple[int, ...] = CIFAR, classes: int = 10, **keys: object) -> Network:
    return MODEL_FAMILY.choose({"name": name, **keys}).build(shape, classes)


def build_on_meta(name: str, shape: tuple[int, ...] = CIFAR, classes: int = 10, **keys: object) -> Network:
    with torch.device("meta"):
        return build(name, shape, classes, **keys)


def units(network: Network) -> tuple[Layer, ...]:
    return (*network.layers, network.classifier)


def count_parameters(network: Network) -> int:
    return sum(parameter.numel() for unit in units(network) for parameter in unit.module.parameters())


def names(network: Network) -> list[str]:
    return [layer.name for layer in network.layers]


def convolution_channels(network: Network) -> list[int]:
    return [m.out_channels for unit in network.layers for m in unit.module.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_a_network_has_the_layers_of_its_plan_and_gives_one_logit_per_class(name: str) -> None:
    network = build_on_meta(name)
    assert len(network.layers) == NUM_LAYERS[name]
    assert len(set(names(network))) == len(network.layers)
    assert activation_shapes(units(network), CIFAR)[-1] == (10,)


@pytest.mark.parametrize(
    ("name", "published_millions", "keys"),
    [
        ("vgg8b", 8.9, {}),  # Nokland & Eidnes, ICML 2019
        ("vgg11b", 11.6, {}),
        ("vgg11b", 42.0, {"width": 2.0}),
        ("vgg11b", 91.3, {"width": 3.0}),
        ("vgg11", 9.2, {}),
        ("vgg16", 14.7, {}),
        ("resnet20", 0.27, {}),  # He et al., CVPR 2016, table 6
        ("resnet32", 0.46, {}),
        ("resnet56", 0.85, {}),
        ("resnet110", 1.7, {}),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, published_millions: float, keys: dict[str, float]) -> None:
    decimals = len(str(published_millions).partition(".")[2])
    assert round(count_parameters(build_on_meta(name, **keys)) / 1e6, decimals) == published_millions


ANYTHING = ["basic_cnn", "mlp", "vgg8b", "vgg11c", "vgg19"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *itertools.product([*ANYTHING, "resnet20"], [CIFAR, (1, 28, 28), DIGITS]),
        *itertools.product(ANYTHING, [SIGNAL, (6, 9)]),
    ],
)
def test_layers_learn_apart_and_leave_their_input_as_it_was(name: str, shape: tuple[int, ...]) -> None:
    network = build(name, shape, **({} if name == "mlp" else SMALL))
    x = torch.randn(4, *shape)
    for unit in units(network):
        before = x.clone()
        output = unit.module(x)
        assert torch.equal(x, before)
        if unit.has_parameters:
            output.sum().backward()
        assert all(parameter.grad is not None for parameter in unit.module.parameters())
        x = output.detach()
    assert x.shape == (4, 10)
    assert x.isfinite().all()


def test_a_plan_keeps_its_names_where_small_images_have_no_room_for_all_pools() -> None:
    assert names(build_on_meta("vgg8b", DIGITS)) == [
        "conv1",
        "conv2",
        "pool1",
        "conv3",
        "conv4",
        "pool2",
        "conv5",
        "pool3",
        "conv6",
        "fc1",
    ]
    assert names(build_on_meta("vgg8b"))[-3:] == ["conv6", "pool4", "fc1"]
    assert activation_shapes(build_on_meta("vgg16", (1, 28, 28)).layers, (1, 28, 28))[-1] == (512, 1, 1)


def test_a_plan_of_signals_is_that_of_images_in_one_dimension() -> None:
    of_images, of_signals = build_on_meta("vgg8b"), build_on_meta("vgg8b", SIGNAL)
    assert names(of_signals) == names(of_images)
    assert [shape for shape in activation_shapes(of_signals.layers, SIGNAL) if len(shape) == 2] == [
        (128, 40),
        (256, 40),
        (256, 20),
        (256, 20),
        (512, 20),
        (512, 10),
        (512, 10),
        (512, 5),
        (512, 5),
        (512, 2),
    ]
    state = of_signals.state_dict()
    assert state.keys() == of_images.state_dict().keys() and state["conv2.conv.weight"].shape == (256, 128, 3)


def test_a_plan_pools_where_it_says() -> None:
    assert activation_shapes(build_on_meta("vgg11c").layers, CIFAR) == [
        (64, 32, 32),
        (128, 32, 32),
        (128, 16, 16),
        (256, 16, 16),
        (256, 16, 16),
        (256, 8, 8),
        (512, 8, 8),
        (512, 8, 8),
        (512, 8, 8),
        (512, 8, 8),
        (512, 4, 4),
        (1024,),
    ]


def test_basic_cnn_halves_the_image_three_times() -> None:
    network = build_on_meta("basic_cnn")
    assert names(network) == ["conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "fc1"]
    assert activation_shapes(network.layers, CIFAR)[-3:] == [(128, 8, 8), (128, 4, 4), (256,)]


def test_only_pools_have_no_parameters() -> None:
    network = build_on_meta("vgg8b")
    assert [layer.name for layer in network.layers if not layer.has_parameters] == [
        "pool1",
        "pool2",
        "pool3",
        "pool4",
    ]


def test_a_cifar_resnet_halves_the_image_and_doubles_the_channels_twice() -> None:
    network = build_on_meta("resnet20")
    assert names(network) == [
        "conv1",
        *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)),
    ]
    shapes = activation_shapes(network.layers, CIFAR)
    assert [shapes[index] for index in (0, 3, 4, 7)] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_a_shortcut_that_changes_the_shape_takes_every_second_pixel_and_adds_zero_channels() -> None:
    shortcut = build("resnet20").layers[4].module.get_submodule("shortcut")
    x = torch.randn(2, 16, 5, 5)
    y = shortcut(x)
    assert y.shape == (2, 32, 3, 3)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()


def test_mlp_has_the_depth_and_width_asked_for() -> None:
    network = build_on_meta("mlp", DIGITS, depth=3, hidden=40)
    assert names(network) == ["fc1", "fc2", "fc3"]
    assert activation_shapes(network.layers, DIGITS) == [(40,)] * 3


def test_state_dict_names_are_those_of_an_ordinary_network() -> None:
    vgg = build_on_meta("vgg8b").state_dict()
    assert {"conv1.conv.weight", "conv6.bn.running_mean", "fc1.linear.bias", "classifier.weight"} <= set(vgg)
    resnet = build_on_meta("resnet20").state_dict()
    expected = {"conv1.weight", "bn1.bias", "layer2.0.conv1.weight", "layer3.2.bn2.weight", "fc.weight"}
    assert expected <= set(resnet)


def test_state_dict_shares_storage_and_wants_no_gradient() -> None:
    network = build("mlp", DIGITS)
    weight = network.state_dict()["classifier.weight"]
    assert not weight.requires_grad
    with torch.no_grad():
        network.classifier.module.get_parameter("classifier.weight").fill_(3)
    assert (weight == 3).all()


def test_a_network_refuses_layers_whose_names_clash() -> None:
    one, other = Layer("a", "a", nn.ReLU()), Layer("b", "", nn.Linear(2, 2))
    with pytest.raises(AssertionError, match="unique"):
        Network((one, one), other)
    with pytest.raises(AssertionError, match="repeats"):
        Network((other,), Layer("c", "", nn.Linear(2, 2))).state_dict()


@pytest.mark.parametrize(
    ("width", "channels"),
    [(1.0, [128, 128, 128]), (0.5, [64, 64, 64]), (0.1, [16, 16, 16]), (0.001, [8, 8, 8]), (1.5, [192] * 3)],
)
def test_width_multiplies_channels_in_multiples_of_8(width: float, channels: list[int]) -> None:
    assert convolution_channels(build_on_meta("basic_cnn", width=width)) == channels


def test_width_reaches_all_three_stages_of_a_resnet() -> None:
    channels = convolution_channels(build_on_meta("resnet20", width=1.5))
    assert channels == [24] * 7 + [48] * 6 + [96] * 6


@pytest.mark.parametrize("name", ["basic_cnn", "vgg8b", "mlp", "resnet20"])
def test_dropout_stands_first_in_every_layer_with_parameters_but_the_first(name: str) -> None:
    network = build_on_meta(name, dropout=0.25)
    first, *others = (unit for unit in units(network) if unit.has_parameters)
    dropouts = {
        unit.name: [module.p for module in unit.module.modules() if isinstance(module, nn.Dropout)]
        for unit in units(network)
    }
    assert all(dropouts[unit.name] == [0.25] for unit in others)
    assert all(not dropouts[unit.name] for unit in units(network) if unit not in others)
    assert first is network.layers[0]
    if name != "resnet20":
        assert all(isinstance(next(unit.module.children()), nn.Dropout) for unit in others)


def test_dropout_never_falls_on_a_shortcut() -> None:
    block = build("resnet20", dropout=0.9, **SMALL).layers[1].module
    nn.init.zeros_(block.get_parameter("bn2.weight"))
    x = torch.rand(2, 8, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", ["basic_cnn", "vgg8b", "mlp", "resnet20"])
def test_dropout_adds_no_parameter_and_renames_none(name: str) -> None:
    assert build_on_meta(name, dropout=0.5).state_dict().keys() == build_on_meta(name).state_dict().keys()


@pytest.mark.parametrize("name", ["basic_cnn", "vgg8b", "vgg11c", "mlp", "resnet20"])
def test_activation_is_that_asked_for_everywhere(name: str) -> None:
    for activation, wanted, other in (("relu", nn.ReLU, nn.LeakyReLU), ("leaky_relu", nn.LeakyReLU, nn.ReLU)):
        modules = [m for unit in build_on_meta(name, activation=activation).layers for m in unit.module.modules()]
        assert any(isinstance(module, wanted) for module in modules)
        assert not any(isinstance(module, other) for module in modules)


@pytest.mark.parametrize("name", ["basic_cnn", "vgg8b", "mlp", "resnet20"])
def test_the_global_seed_decides_the_initialisation(name: str) -> None:
    keys = {} if name == "mlp" else SMALL
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build(name, DIGITS, **keys).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(next(iter(states[0].values())), next(iter(states[2].values())))


def test_convolutions_of_a_cifar_resnet_start_with_variance_2_over_fan_out() -> None:
    weight = build("resnet20").state_dict()["layer3.1.conv1.weight"]
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_shapes_touch_neither_modules_nor_the_generator() -> None:
    network = build("vgg8b", DIGITS, **SMALL, dropout=0.5)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    activation_shapes(units(network), DIGITS)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(module.training for unit in units(network) for module in unit.module.modules())


def test_shapes_may_start_at_any_layer() -> None:
    network = build_on_meta("vgg8b")
    shapes = activation_shapes(network.layers, CIFAR)
    assert activation_shapes(network.layers[4:], shapes[3]) == shapes[4:]


def test_shapes_name_the_layer_that_does_not_fit() -> None:
    network = build_on_meta("mlp", DIGITS)
    with pytest.raises(ValueError, match=r"layer 'fc1' does not accept input of shape \(3, 8, 8\)"):
        activation_shapes(network.layers, (3, 8, 8))
