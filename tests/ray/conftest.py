"""A throw-away cluster of three nodes on this machine, with a dashboard for jobs; and commands as users type them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

ROOT = Path(__file__).resolve().parents[2]
CPUS_PER_NODE = 2


class Cluster:
    """Three nodes of two CPUs each, by Ray's accounts; the tests' machine may have fewer."""

    def __init__(self, environment: dict[str, str]) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self.environment = environment
        self.dashboard_port = free_port()
        head = {"num_cpus": CPUS_PER_NODE, "include_dashboard": True, "dashboard_port": self.dashboard_port}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add_node() for _ in range(2)]
        self.address: str = self._cluster.address

    def add_node(self) -> object:
        """Another node of two CPUs; blocks until it has joined."""
        return self._cluster.add_node(num_cpus=CPUS_PER_NODE)

    def kill_node(self, node: object) -> None:
        """As if its power had gone."""
        self._cluster.remove_node(node, allow_graceful=False)

    def run(self, *arguments: str, timeout_s: float = 150) -> "subprocess.CompletedProcess[str]":
        """launch/ray_run.py on this cluster."""
        command = [sys.executable, str(ROOT / "launch" / "ray_run.py"), "--address", self.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, env=self.environment)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The same, without waiting for its end."""
        command = [sys.executable, str(ROOT / "launch" / "ray_run.py"), "--address", self.address, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, text=True, cwd=ROOT, env=self.environment, **pipes)  # type: ignore[call-overload]

    def shutdown(self) -> None:
        self._cluster.shutdown()


def free_port() -> int:
    """A port that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # An own HOME: a throw-away cluster leaves no token behind, and finds none.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    found = Cluster(os.environ | settings)
    yield found
    found.shutdown()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value
