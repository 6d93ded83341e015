"""Auxiliary heads: their structure, size and cost are those of the papers."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from greedypipe.pipeline.heads import HEAD_FAMILY, build_head
from greedypipe.pipeline.heads.linear import MAX_LINEAR_FEATURES
from tests.unit.tiny import head, make_site

NAMES = ("linear", "mlp", "mlp_aux", "mlp_sr", "cnn")


def build(name: str, shape: tuple[int, ...], classes: int = 10, hidden: int = 32) -> nn.Module:
    keys = {"hidden": hidden} if name == "mlp" else {}
    return build_head(head(name, **keys), make_site(shape, classes))


def build_on_meta(name: str, shape: tuple[int, ...], classes: int = 10, hidden: int = 32) -> nn.Module:
    with torch.device("meta"):
        return build(name, shape, classes, hidden)


def count_parameters(head: nn.Module) -> int:
    return sum(parameter.numel() for parameter in head.parameters())


def outline(head: nn.Module) -> list[str]:
    """One line per layer: what it is and its widths."""
    return [_line(module) for module in head.modules() if not list(module.children())]


def _line(module: nn.Module) -> str:
    match module:
        case nn.Linear():
            return f"linear {module.in_features} {module.out_features}"
        case nn.Conv2d():
            bias = "no bias" if module.bias is None else "bias"
            return f"conv{module.kernel_size[0]} {module.in_channels} {module.out_channels} {bias}"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"bn {module.num_features}"
        case nn.AdaptiveAvgPool2d():
            return f"pool to {module.output_size}"
        case nn.AvgPool2d():
            return f"pool by {module.kernel_size}"
        case _:
            return type(module).__name__.lower()


def sizes_seen(head: nn.Module, kind: type[nn.Module], x: Tensor) -> list[tuple[int, ...]]:
    """Height and width of what each layer of `kind` is given."""
    seen: list[tuple[int, ...]] = []
    for module in head.modules():
        if isinstance(module, kind):
            module.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    head(x)
    return seen


@pytest.mark.parametrize("shape", [(12, 8, 8), (12, 7, 7), (12, 3, 3), (12, 1, 1), (12,), (5, 12)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_head_turns_every_kind_of_activation_into_logits(name: str, shape: tuple[int, ...]) -> None:
    head = build(name, shape, classes=7)
    x = torch.randn(3, *shape)
    before = x.clone()
    logits = head(x)
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()
    assert torch.equal(x, before), "a head must leave the activation as it was"


@pytest.mark.parametrize("shape", [(12, 8, 8), (12, 1, 1), (12,), (5, 12)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_head_is_trained(name: str, shape: tuple[int, ...]) -> None:
    head = build(name, shape)
    (head(torch.randn(3, *shape)) ** 2 + head(torch.randn(3, *shape))).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_linear_pools_and_has_one_layer() -> None:
    assert outline(build_on_meta("linear", (128, 16, 16))) == ["pool to 5", "flatten", "linear 3200 10"]


def test_mlp_has_one_hidden_layer_and_sees_every_position() -> None:
    assert outline(build_on_meta("mlp", (8, 4, 4), hidden=20)) == ["flatten", "linear 128 20", "relu", "linear 20 10"]


def test_mlp_aux_pools_to_2_by_2_and_has_three_hidden_layers_of_width_4c() -> None:
    assert outline(build_on_meta("mlp_aux", (128, 32, 32))) == [
        "pool by 4",
        "pool by 4",
        "flatten",
        *["linear 512 512", "bn 512", "relu"] * 3,
        "linear 512 10",
    ]


def test_mlp_sr_has_three_1x1_convolutions_on_16_times_fewer_positions_and_then_mlp_aux() -> None:
    assert outline(build_on_meta("mlp_sr", (128, 32, 32))) == [
        "pool by 4",
        *["conv1 128 128 no bias", "bn 128", "relu"] * 3,
        "pool by 4",
        "flatten",
        *["linear 512 512", "bn 512", "relu"] * 3,
        "linear 512 10",
    ]


def test_cnn_has_two_3x3_convolutions_before_it_pools() -> None:
    assert outline(build_on_meta("cnn", (128, 32, 32))) == [
        *["conv3 128 128 no bias", "bn 128", "relu"] * 2,
        "pool by 16",
        "bn 128",
        "flatten",
        "linear 512 10",
    ]


@pytest.mark.parametrize(("size", "coarse"), [(32, 8), (28, 7), (16, 4), (14, 4), (7, 2), (4, 1)])
def test_the_convolutions_of_mlp_sr_see_a_quarter_of_the_side_rounded_up(size: int, coarse: int) -> None:
    head = build("mlp_sr", (8, size, size))
    assert sizes_seen(head, nn.Conv2d, torch.randn(2, 8, size, size)) == [(coarse, coarse)] * 3


def test_the_convolutions_of_cnn_see_full_resolution() -> None:
    assert sizes_seen(build("cnn", (8, 14, 14)), nn.Conv2d, torch.randn(2, 8, 14, 14)) == [(14, 14)] * 2


@pytest.mark.parametrize(("channels", "size"), [(128, 32), (256, 16), (512, 16), (512, 8)])
def test_heads_have_the_published_number_of_parameters(channels: int, size: int) -> None:
    width = 4 * channels
    mlp_aux = 3 * (width * width + width + 2 * width) + width * 10 + 10
    convolutions_1x1 = 3 * (channels * channels + 2 * channels)
    cnn = 2 * (9 * channels * channels + 2 * channels) + 2 * channels + width * 10 + 10
    shape = (channels, size, size)
    assert count_parameters(build_on_meta("mlp_aux", shape)) == mlp_aux
    assert count_parameters(build_on_meta("mlp_sr", shape)) == mlp_aux + convolutions_1x1
    assert count_parameters(build_on_meta("cnn", shape)) == cnn


@pytest.mark.parametrize(
    ("name", "narrow", "wide", "all_five"),
    [("mlp_aux", 0.8, 12.6, 32), ("mlp_sr", 0.9, 13.4, 34), ("cnn", 0.3, 4.7, None)],
)
def test_heads_of_the_6_layer_network_are_as_large_as_reported(
    name: str, narrow: float, wide: float, all_five: int | None
) -> None:
    shapes = [(128, 32, 32), (256, 16, 16), (256, 16, 16), (512, 16, 16), (512, 8, 8)]
    millions = [count_parameters(build_on_meta(name, shape)) / 1e6 for shape in shapes]
    assert millions[0] == pytest.approx(narrow, abs=0.06)  # the table rounds 0.846 to 0.9
    assert round(millions[-1], 1) == wide
    assert all_five is None or round(sum(millions)) == all_five


def test_the_head_of_a_halved_resnet152_has_57_6_million_parameters() -> None:
    assert round(count_parameters(build_on_meta("mlp_sr", (1024, 14, 14), classes=1000)) / 1e6, 1) == 57.6


@pytest.mark.parametrize("shape", [(16, 8, 8), (24,), (5, 24)], ids=str)
def test_a_linear_head_starts_at_zero_and_learns(shape: tuple[int, ...]) -> None:
    head = build("linear", shape)
    logits = head(torch.randn(4, *shape))
    assert not logits.any()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (64, 16, 16), (128, 32, 32), (512, 32, 32), (512, 4, 4), (1024, 7, 7), (4096, 2, 2)], ids=str
)
def test_a_linear_head_sees_at_most_4096_features_and_wastes_no_room(shape: tuple[int, int, int]) -> None:
    head = build_on_meta("linear", shape)
    (linear,) = (module for module in head.modules() if isinstance(module, nn.Linear))
    channels, size, _ = shape
    side = math.isqrt(linear.in_features // channels)
    assert linear.in_features == channels * side * side <= MAX_LINEAR_FEATURES == 4096
    assert side == size or channels * (side + 1) ** 2 > MAX_LINEAR_FEATURES


def test_a_linear_head_keeps_every_position_of_a_small_map() -> None:
    head = build("linear", (2, 4, 4))
    (linear,) = (module for module in head.modules() if isinstance(module, nn.Linear))
    nn.init.normal_(linear.weight)
    x = torch.randn(3, 2, 4, 4)
    assert torch.allclose(head(x), linear(x.flatten(1)))


@pytest.mark.parametrize("hidden", [1, 20, 64])
@pytest.mark.parametrize("shape", [(8, 4, 4), (24,), (5, 24)], ids=str)
def test_hidden_is_the_width_of_the_mlp(shape: tuple[int, ...], hidden: int) -> None:
    features = shape[-1] if len(shape) == 2 else math.prod(shape)
    assert count_parameters(build_on_meta("mlp", shape, hidden=hidden)) == (features + 1) * hidden + (hidden + 1) * 10


@pytest.mark.parametrize("name", ["linear", "mlp_aux", "mlp_sr", "cnn"])
def test_hidden_is_nothing_to_the_other_heads(name: str) -> None:
    assert outline(build_on_meta(name, (8, 8, 8), hidden=1)) == outline(build_on_meta(name, (8, 8, 8), hidden=99))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_averaged_first(name: str) -> None:
    head = build(name, (5, 12)).eval()
    tokens = torch.randn(3, 5, 12)
    mean = tokens.mean(1, keepdim=True).expand(-1, 5, -1)
    assert torch.allclose(head(tokens), head(mean), atol=1e-6)
    assert torch.allclose(head(tokens), head(tokens.flip(1)), atol=1e-6)


@pytest.mark.parametrize("name", ["mlp_aux", "mlp_sr", "cnn"])
def test_a_vector_is_a_map_of_one_position_and_is_not_repeated(name: str) -> None:
    assert outline(build_on_meta(name, (12,)))[1:] == outline(build_on_meta(name, (12, 1, 1)))
    assert "linear 12 10" in outline(build_on_meta(name, (12,)))


@pytest.mark.parametrize(("key", "value"), [("name", "transformer"), ("hidden", 0), ("depth", 2)])
def test_impossible_heads_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        HEAD_FAMILY.choose({"name": "mlp", key: value})
