"""A plan is made once: other cuts and other replicas are plans of the same data and the same weights."""

from unittest.mock import Mock

import pytest

from greedypipe.launch.config.loader import ConfigError, load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan, natural_processes
from greedypipe.pipeline import build
from tests.unit.tiny import CPU, batch, differing

TINY = ("data.name=digits", "data.batch_size=64", "model.name=mlp", "model.hidden=16", "partition.blocks=2")


def plan(*overrides: str, processes: int = 2) -> Plan:
    return make_plan(load_config(None, [*TINY, *overrides]), processes)


def test_another_cut_is_the_plan_that_would_have_been_made_with_it() -> None:
    made, recut = plan("partition.boundaries=[fc3]"), plan().recut(("fc3",))
    assert recut.config == made.config and recut.placement == made.placement and recut.data == made.data
    assert recut.blueprint.partition == made.blueprint.partition and recut.blueprint.shapes == made.blueprint.shapes
    assert recut.layout_after(0) == made.layout_after(0)
    assert not differing(recut.blueprint.network.state_dict(), made.blueprint.network.state_dict())


def test_another_cut_keeps_what_follows_from_the_rest() -> None:
    first = plan("partition.boundaries=auto", "partition.profile_s=1")
    second = first.recut(("fc4",))
    assert second.blueprint.network is first.blueprint.network and second.data is first.data
    assert second.config.partition.profile_s == 5.0, "where boundaries are named, it has no effect and must not be set"


def test_a_cut_that_is_impossible_is_refused_in_a_line() -> None:
    with pytest.raises(ConfigError, match=r"partition\.boundaries: 'fc9' cannot begin a block"):
        plan().recut(("fc9",))


def test_replicas_are_checked_again() -> None:
    made = plan("placement.replicas=[2,1]", processes=3)
    assert plan().with_replicas((2, 1)).config == made.config
    assert plan().with_replicas((2, 1)).placement == made.placement
    with pytest.raises(ConfigError, match=r"placement\.replicas: got 3, allowed: divisors of"):
        plan().with_replicas((1, 3))
    with pytest.raises(ConfigError) as caught:
        plan("buffers.policy=replay", "debug.fault=raise", "debug.fault_stage=1").with_replicas((3,))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "placement.replicas",
        "placement.replicas",
        "debug.fault_stage",
    ]


def test_a_redrawn_plan_has_the_initial_weights_again() -> None:
    first = plan()
    initial = {name: value.clone() for name, value in first.blueprint.network.state_dict().items()}
    block = first.blueprint.build_block(0, CPU)
    block.forward(*batch(block))
    block.learn()
    assert differing(initial, first.blueprint.network.state_dict())
    assert differing(initial, first.recut(("fc4",)).blueprint.network.state_dict()), "a cut undoes no training"
    again = first.redrawn()
    assert not differing(initial, again.blueprint.network.state_dict())
    assert again.config is first.config and again.data is first.data


def test_the_natural_number_of_processes_is_known_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "draw_network", Mock(side_effect=AssertionError("drawn")))
    assert natural_processes(load_config(None, ["partition.blocks=3"])) == 3
    assert natural_processes(load_config(None, ["partition.blocks=3", "placement.replicas=2"])) == 6
    assert natural_processes(load_config(None, ["partition.blocks=3", "placement.replicas=[1,4]"])) == 5


def test_all_that_is_impossible_is_reported_at_once() -> None:
    overrides = [
        "partition.blocks=9",
        "placement.replicas=[2,2]",
        "data.batch_size=718",
        "debug.slow_stage=5",
        "optimizer.warmup_steps=100000",
    ]
    with pytest.raises(ConfigError) as caught:
        plan(*overrides, processes=4)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "partition.blocks",
        "placement.replicas",
        "debug.slow_stage",
        "optimizer.warmup_steps",
    ]


def test_missing_data_hide_nothing_that_can_be_known_without_them() -> None:
    with pytest.raises(ConfigError) as caught:
        plan("data.name=image_folder", "data.root=/nonexistent", "debug.fault_stage=7", processes=3)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and lines[0].startswith("data.root=/nonexistent") and lines[1].startswith("3 stages for 2 blocks")
