"""What a run asks of a Ray cluster, and who sits where; no Ray is needed to know it."""

import itertools
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greedypipe.launch import ray_run
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_ray.resources import bundles, cpus_of_own_cluster, seating, shortage
from greedypipe.launch.planning.run_plan import make_plan

TINY = ["model.width=0.1", "partition.blocks=3"]


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


def test_every_process_has_a_bundle_and_the_first_stage_cpus_for_its_loader() -> None:
    plan = make_plan(load_config(None, [*TINY, "ray.cpus=2", "data.loader_workers=3"]), 3)
    assert bundles(plan, num_gpus=0) == [{"CPU": 5}, {"CPU": 2}, {"CPU": 2}]


@pytest.mark.parametrize(("device", "gpus", "asks"), [("auto", 0, False), ("auto", 3, True), ("cpu", 3, False)])
def test_a_gpu_is_asked_for_where_there_are_any_and_the_run_may_use_them(device: str, gpus: int, asks: bool) -> None:
    plan = make_plan(load_config(None, [*TINY, f"placement.device={device}"]), 3)
    assert all(("GPU" in bundle) == asks for bundle in bundles(plan, gpus))


@pytest.mark.parametrize(("cores", "cpus"), [(2, 4), (8, 8)])
def test_a_cluster_on_this_machine_alone_has_room_for_the_run(cores: int, cpus: int) -> None:
    assert cpus_of_own_cluster([{"CPU": 1.5}, {"CPU": 1.0}, {"CPU": 1.0}], cores) == cpus


@pytest.mark.parametrize(
    ("nodes", "strategy", "expected"),
    [
        ([node(CPU=2), node(CPU=2)], "PACK", ""),
        ([node(CPU=2), node(alive=False, CPU=8)], "PACK", "3 processes need 3 CPU, the cluster has 2"),
        ([node(CPU=0.5)] * 8, "PACK", "one process needs 1 CPU, no node has more than 0.5"),
        ([node(CPU=2)] * 2, "STRICT_PACK", "ray.strategy=STRICT_PACK needs 3 CPU on one node, none has more than 2"),
        ([node(CPU=4)] * 2, "STRICT_SPREAD", "ray.strategy=STRICT_SPREAD needs 3 nodes, the cluster has 2"),
    ],
)
def test_what_a_cluster_can_never_give_is_said_in_a_line(nodes: list[dict[str, Any]], strategy: str, expected: str) -> None:
    assert shortage([{"CPU": 1.0}] * 3, nodes, strategy) == expected


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["launch/ray_run.py", *TINY])
    with pytest.raises(SystemExit) as left:
        ray_run.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "greedypipe: ray is not installed: pip install 'greedypipe[ray]'\n"


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.data())
def test_neighbours_share_a_node_where_they_can(nodes: list[str], data: st.DataObject) -> None:
    num_first = data.draw(st.integers(1, len(nodes)))
    seats = seating(nodes, num_first)
    assert sorted(seats) == list(range(len(nodes))) and sorted(seats[:num_first]) == list(range(num_first))
    others = [nodes[bundle] for bundle in seats[num_first:]]
    changes = sum(left != right for left, right in itertools.pairwise(others))
    assert changes == max(0, len(set(others)) - 1), "a node is left once and not come back to"
    last = nodes[seats[num_first - 1]]
    assert last not in others or others[0] == last
