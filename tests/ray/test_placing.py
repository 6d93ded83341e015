"""Where the processes of a run sit on a cluster of several nodes."""

import subprocess
import sys

import pytest

from tests.ray.conftest import ROOT, Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]

SCRIPT = """
import ray, sys
sys.path.insert(0, {root!r})
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_ray.reservation import reserved
from greedypipe.launch.on_ray.resources import bundles, seating
from greedypipe.launch.planning.run_plan import make_plan
from ray.util.placement_group import placement_group_table
ray.init({address!r}, logging_level="ERROR")
plan = make_plan(load_config(None, ["model.width=0.1", "partition.blocks={blocks}"]), {blocks})
with reserved(bundles(plan, 0), {strategy!r}, 30) as group:
    nodes = placement_group_table(group)["bundles_to_node_id"]
    print([nodes[bundle] for bundle in seating([nodes[one] for one in range(len(nodes))], 1)])
"""


def nodes_of_ranks(cluster: Cluster, strategy: str, blocks: int) -> list[str]:
    script = SCRIPT.format(root=str(ROOT), address=cluster.address, strategy=strategy, blocks=blocks)
    command, environment = [sys.executable, "-c", script], cluster.environment
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert result.returncode == 0, result.stderr
    return eval(result.stdout.splitlines()[-1])


def test_packed_neighbours_share_nodes(cluster: Cluster) -> None:
    nodes = nodes_of_ranks(cluster, "PACK", 4)
    assert nodes[0] == nodes[1] and nodes[2] == nodes[3] and len(set(nodes)) == 2


def test_spread_stages_have_nodes_of_their_own(cluster: Cluster) -> None:
    assert len(set(nodes_of_ranks(cluster, "SPREAD", 3))) == 3


def test_six_stages_on_three_nodes_come_to_each_node_once(cluster: Cluster) -> None:
    nodes = nodes_of_ranks(cluster, "SPREAD", 6)
    assert [nodes[rank] == nodes[rank + 1] for rank in range(5)] == [True, False, True, False, True]
