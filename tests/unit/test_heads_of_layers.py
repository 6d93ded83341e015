"""Heads that look at the network's layers, heads of signals and of tokens, and heads and optimizers that differ by block."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.head_costs import head_costs
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.heads import HEAD_FAMILY, HEADS, build_head
from greedypipe.pipeline.heads.auglocal import depth_at, sampled
from greedypipe.pipeline.networks.cifar_resnet import BasicBlock, CifarResnetConfig
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.site import Site
from tests.unit.test_heads import outline, sizes_seen
from tests.unit.tiny import CPU, VGG, head, make_blueprint, make_site

TINY = ("data.name=digits", "data.batch_size=32", "model.width=0.1")
OWN_OBJECTS = "tests.unit.own_objects"


def plan_of(*overrides: str) -> Plan:
    network = () if any(one.startswith("model.name") for one in overrides) else TINY[2:]
    return make_plan(load_config(None, [*TINY[:2], *network, *overrides]), 1)


def blocks_of(plan: Plan) -> list[Block]:
    return [plan.blueprint.build_block(index, CPU) for index in range(plan.blueprint.num_blocks)]


def sites_of(blocks: int, **sections: Any) -> list[Site]:
    images = sections.pop("images", (3, 32, 32))
    blueprint = make_blueprint(blocks, images, **sections)
    return [blueprint.build_block(index, CPU).site for index in range(blocks)]


def layer(*modules: nn.Module) -> Layer:
    return Layer("one", "one", nn.Sequential(*modules))


# The head conv


@pytest.mark.parametrize(
    ("size", "behind", "expected"),
    [
        (8, nn.MaxPool2d(2), ["pool by 2", "conv3 8 16 no bias", "bn 16", "relu", "maxpool2d", "pool by 1"]),
        (8, nn.Identity(), ["pool by 2", "conv3 8 16 no bias", "bn 16", "relu", "pool by 2"]),
        (5, nn.MaxPool2d(2), ["pool by 2", "conv3 8 16 no bias", "bn 16", "relu", "pool by 1"]),
        (4, nn.MaxPool2d(2), ["conv3 8 16 no bias", "bn 16", "relu", "maxpool2d", "pool by 1"]),
        (1, nn.MaxPool2d(2), ["conv3 8 16 no bias", "bn 16", "relu", "pool to 1"]),
    ],
)
def test_conv_pools_where_the_next_unit_pools(size: int, behind: nn.Module, expected: list[str]) -> None:
    later = (
        layer(nn.ReLU()),
        layer(nn.Conv2d(8, 16, 3)),
        layer(behind),
        layer(nn.Conv2d(16, 32, 3)),
        layer(nn.MaxPool2d(2)),
    )
    built = build_head(head("conv"), make_site((8, size, size), later_layers=later))
    assert outline(built)[:-1] == [*expected, "flatten"]
    assert built(torch.randn(3, 8, size, size)).shape == (3, 10)


def test_half_the_width_has_half_the_channels() -> None:
    later = (layer(nn.Conv2d(8, 64, 3)),)
    lines = outline(build_head(head("conv", width=0.5, depth=2), make_site((8, 4, 4), later_layers=later)))
    assert [line for line in lines if line.startswith("conv")] == ["conv3 8 32 no bias", "conv3 32 32 no bias"]


# AugLocal


def test_auglocal_samples_the_units_of_the_paper() -> None:
    """ResNet-32, a block per unit, 5 units: the first block samples the units 3, 6, 9, 12 and 15."""
    sites = sites_of(16, model=CifarResnetConfig(name="resnet32", width=0.5))
    names = [layer.name for layer in (*sites[0].layers, *sites[0].later_layers)]
    assert [names.index(one.name) for one in sampled(sites[0], 5)] == [3, 6, 9, 12, 15]
    assert [depth_at(site, 5, 0.5) for site in sites[:-1]] == [5, 5, 5, 5, *[4] * 7, *[3] * 4]
    assert [depth_at(site, 5, 0.0) for site in sites[:-1]] == [5] * 15
    assert [names.index(one.name) for one in sampled(sites[12], 3)] == [13, 14, 15]
    assert [names.index(one.name) for one in sampled(sites[9], 4)] == [10, 12, 14, 15]  # halves go to even numbers


def test_auglocal_has_units_like_those_that_follow() -> None:
    first, *_ = sites_of(4, model=CifarResnetConfig(name="resnet20", width=0.5))
    built = build_head(head("auglocal", depth=3, pooled=False), first)
    units = [module for module in built if isinstance(module, BasicBlock)]  # type: ignore[attr-defined]
    assert [(unit.conv1.in_channels, unit.conv1.out_channels, unit.conv1.stride) for unit in units] == [
        (8, 16, (2, 2)),
        (16, 16, (1, 1)),
        (16, 32, (2, 2)),
    ]
    narrow = build_head(head("auglocal", depth=1, width=0.5), first)
    assert outline(narrow)[-2:] == ["bn 16", "linear 16 10"]
    plain = build_head(head("auglocal", depth=2), sites_of(4, model=VGG, images=(1, 8, 8))[0])
    assert not [module for module in plain.modules() if isinstance(module, BasicBlock)]


def test_a_pooled_map_has_a_quarter_of_the_positions() -> None:
    first, *_ = sites_of(4, model=CifarResnetConfig(name="resnet20", width=0.5))
    seen = [
        sizes_seen(build_head(head("auglocal", depth=1, pooled=one), first), nn.Conv2d, torch.randn(2, 8, 32, 32))[0]
        for one in (True, False)
    ]
    assert seen == [(16, 16), (32, 32)]


# Others of papers


def test_the_critic_is_a_convolution_at_full_resolution() -> None:
    built = build_head(head("critic"), make_site((8, 4, 4)))
    assert outline(built) == ["conv3 8 128 bias", "relu", "flatten", "linear 2048 10"]


def test_infopros_head_widens_as_the_network_does() -> None:
    later = (layer(nn.Conv2d(16, 16, 3)), layer(nn.Conv2d(16, 32, 3)))
    wide = build_head(head("infopro"), make_site((16, 8, 8), later_layers=later))
    assert outline(wide) == [
        "conv3 16 32 no bias",
        "bn 32",
        "relu",
        "pool to 1",
        "flatten",
        "linear 32 128",
        "relu",
        "linear 128 10",
    ]
    assert wide[0][0].stride == (2, 2)  # type: ignore[index]
    assert outline(build_head(head("infopro"), make_site((16, 8, 8))))[0] == "conv3 16 16 no bias"


def test_private_layers_have_the_networks_shape() -> None:
    site = make_site((9, 16), layers=(layer(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)),))
    built: Any = build_head(head("private_layers", depth=2), site)
    assert [(one.self_attn.num_heads, one.linear1.out_features) for one in built[:2]] == [(2, 24)] * 2
    assert isinstance(built[2], nn.LayerNorm) and built(torch.randn(3, 9, 16)).shape == (3, 10)
    plain: Any = build_head(head("private_layers", depth=0), site)
    x = torch.randn(3, 9, 16)
    assert torch.equal(plain(x), plain[-1](x[:, 0]))
    mean: Any = build_head(head("private_layers", depth=0, reads="mean"), site)
    assert torch.equal(mean(x), mean[-1](x.mean(1)))


# Signals and tokens

CONV = nn.Sequential(nn.Conv1d(3, 12, 3), nn.BatchNorm1d(12), nn.ReLU())


@pytest.mark.parametrize(
    ("modules", "shape", "is_signal"),
    [
        ([CONV], (12, 8), True),
        ([CONV, nn.MaxPool1d(2)], (12, 4), True),
        ([nn.LayerNorm(8)], (12, 8), False),
        ([nn.TransformerEncoderLayer(8, 2, 8)], (12, 8), False),
        ([CONV, nn.Flatten(), nn.Linear(96, 5)], (5,), False),
        ([nn.Conv2d(3, 12, 3)], (12, 8, 8), False),
        ([], (12, 8), False),
    ],
)
def test_signals_are_told_from_tokens_by_what_made_them(
    modules: list[nn.Module], shape: tuple[int, ...], is_signal: bool
) -> None:
    assert make_site(shape, layers=(layer(*modules),)).is_signal is is_signal
    assert make_site(shape, layers=(layer(nn.ReLU()),), earlier_layers=(layer(*modules),)).is_signal is is_signal


@pytest.mark.parametrize("length", [16, 5, 1])
@pytest.mark.parametrize("name", [name for name in HEADS if name != "private_layers"])
def test_heads_of_signals_convolve_in_one_dimension(name: str, length: int) -> None:
    site = make_site((12, length), layers=(layer(CONV),), later_layers=(layer(nn.Conv1d(12, 24, 3)), layer(nn.MaxPool1d(2))))
    built = build_head(head(name), site)
    logits = built(torch.randn(3, 12, length))
    assert logits.shape == (3, 10) and logits.isfinite().all()
    assert not [
        module for module in built.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.AdaptiveAvgPool2d)
    ]
    has_convolutions = any(isinstance(module, nn.Conv1d) for module in built.modules())
    assert has_convolutions is (name not in ("linear", "mlp", "mlp_aux"))


# By block


def test_heads_differ_by_block() -> None:
    plan = plan_of("head.name=conv", "head.by_block=[{name: cnn}, {}, {depth: 2}]")
    alone = [plan_of("head.name=cnn"), plan_of("head.name=conv"), plan_of("head.name=conv", "head.depth=2")]
    for index, (block, other) in enumerate(zip(blocks_of(plan)[:3], alone, strict=True)):
        expected = blocks_of(other)[index].method.state_dict()
        assert block.method.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in block.method.state_dict().items())


def test_layers_are_measured_with_the_head_of_their_block() -> None:
    plan = plan_of("head.name=linear", "head.by_block=[{}, {name: cnn}, {}]", "partition.boundaries=[conv2,conv4,conv5]")
    trial = plan.blueprint.for_trials()
    units = tuple(layer.name for layer in trial.network.layers if layer.has_parameters)
    finest = trial.recut(plan.config.partition.model_copy(update={"blocks": len(units), "boundaries": units[1:]}))
    assert [finest._head_of(index).name for index in range(4)] == ["linear", "cnn", "cnn", "linear"]


def test_rates_and_decays_differ_by_block() -> None:
    plan = plan_of(
        "optimizer.lr=0.1", "optimizer.by_block=[{lr: 0.3}, {}, {weight_decay: 0}, {lr: 0.05, weight_decay: 0.1}]"
    )
    groups = [block._optimizations.main._optimizer.param_groups[0] for block in blocks_of(plan)]
    assert [(one["lr"], one["weight_decay"]) for one in groups] == [(0.3, 5e-4), (0.1, 5e-4), (0.1, 0.0), (0.05, 0.1)]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["head.by_block=[{name: cnn}]"], "head.by_block: got 1 entries, allowed: 3"),
        (["head.name=conv", "head.by_block=[{depth: 0}, {}, {}]"], "head.by_block: entry 0, depth: got 0"),
        (["head.by_block=[{}, {name: cone}, {}]"], "head.by_block: entry 1, name: unknown head 'cone', nearest is 'conv'"),
        (["head.by_block=[{}, {}, {by_block: [{}]}]"], "head.by_block: entry 2: got by_block once more"),
        (["optimizer.by_block=[{lr: 1}]"], "optimizer.by_block: got 1 entries, allowed: 4"),
        (["optimizer.by_block=[{lr: -1}, {}, {}, {}]"], "optimizer.by_block: got -1"),
        (["optimizer.by_block=[{momentum: 1}, {}, {}, {}]"], "optimizer.by_block: got "),
        (["optimizer.name=torch.optim:RMSprop", "optimizer.by_block=[{weight_decay: 1}, {}, {}, {}]"], "got weight_decay"),
        (["head.name=private_layers"], "head.name: got private_layers at block 0, at an activation [16, 8, 8]"),
    ],
)
def test_what_blocks_cannot_have_is_refused_before_the_start(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan_of(*overrides)
    (found,) = str(refused.value).splitlines()
    assert line in found


def test_a_head_by_block_is_checked_where_it_is_chosen() -> None:
    with pytest.raises(ValidationError, match="by_block"):
        HEAD_FAMILY.choose({"name": "conv", "by_block": 3})


# What heads cost


def test_the_planner_counts_heads_and_not_the_classifier() -> None:
    first, *_, last = head_costs(plan_of("head.name=linear"), CPU)
    wide, *_ = head_costs(plan_of("head.name=cnn"), CPU)
    rows, (channels, size, _) = 32, blocks_of(plan_of())[0].shapes.output
    features = channels * min(size, int((4096 // channels) ** 0.5)) ** 2
    assert first.head_macs == rows * features * 10 * 3
    assert wide.head_macs > 10 * first.head_macs and wide.macs - wide.head_macs == first.macs - first.head_macs
    assert last.head_macs == last.head_s == 0 and last.macs > 0
    assert first.head_s > 0 and first.seconds > 0 and "%" in str(first + last)


@pytest.mark.parametrize("method", ["dni", "dtp", "features_replay", "reconstruction", "local_critic"])
def test_every_kind_of_method_can_be_counted(method: str) -> None:
    assert all(0 <= cost.head_macs <= cost.macs for cost in head_costs(plan_of(f"method.name={method}"), CPU))
