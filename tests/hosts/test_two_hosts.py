"""A run over two hosts: the commands that README gives, in two network namespaces of this machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore

from benchmarks.engines.hosts import Hosts, two_hosts, why_not
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import local_run
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.workers.links.connect import LinkEnd
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.links.patience import Patience
from tests.multiprocess.harness import TINY, assert_equal_states, exported

ROOT = Path(__file__).resolve().parents[2]
RUN = [*TINY, "partition.blocks=2", "training.epochs=2"]
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(240), pytest.mark.skipif(bool(why_not()), reason=why_not())]


def assert_as_one_process(folder: Path, tmp_path: Path) -> None:
    alone = local_run.run_pipeline(RUN, 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml"))
    assert_equal_states(network_state(folder), exported(alone))
    first = json.loads((folder / "summary.json").read_text())["stages"][0]
    assert first["link"]["transport"] == "gloo", "two hosts share no memory"


def start(hosts: Hosts, host: int, *command: str) -> "subprocess.Popen[str]":
    environment = os.environ | hosts.environment(host) | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(hosts.command(host, command), text=True, env=environment, cwd=ROOT, **pipes)  # type: ignore[call-overload]


ALONE_AGAIN = [
    "faults.policy=isolate",
    "checkpoint.interval_steps=5",
    "debug.fault=exit",
    "debug.fault_stage=1",
    "debug.fault_step=21",
]


@pytest.mark.parametrize("faults", [[], ALONE_AGAIN], ids=["undisturbed", "the second host's process dies"])
def test_torchrun_over_two_hosts_gives_the_bytes_of_one_process(faults: list[str], tmp_path: Path) -> None:
    with two_hosts() as hosts:
        processes = [
            start(
                hosts,
                host,
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=2",
                f"--node_rank={host}",
                "--nproc_per_node=1",
                f"--master_addr={hosts.addresses[0]}",
                "--master_port=29517",
                "launch/run.py",
                *RUN,
                *faults,
                f"run.folder={tmp_path}",
                "run.name=run",
            )
            for host in range(2)
        ]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert_as_one_process(tmp_path / "run", tmp_path)
    stages = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    assert [stage["restarts"] for stage in stages] == [0, int(bool(faults))]


@pytest.mark.ray
def test_ray_over_two_hosts_gives_the_bytes_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    ray, (head, other) = str(Path(sys.executable).with_name("ray")), ("10.77.0.1", "10.77.0.2")
    common = ["--num-cpus=1", "--block", "--disable-usage-stats"]
    with two_hosts() as hosts:
        first = ["--head", f"--node-ip-address={head}", "--port=6391", "--include-dashboard=false"]
        start(hosts, 0, ray, "start", *first, *common)
        time.sleep(8)
        start(hosts, 1, ray, "start", f"--address={head}:6391", f"--node-ip-address={other}", *common)
        time.sleep(8)
        run = start(
            hosts,
            0,
            sys.executable,
            "launch/ray_run.py",
            "--address",
            f"{head}:6391",
            *RUN,
            "ray.strategy=STRICT_SPREAD",
            f"run.folder={tmp_path}",
            "run.name=run",
        )
        output, _ = run.communicate(timeout=180)
    assert run.returncode == 0, output
    assert_as_one_process(tmp_path / "run", tmp_path)


def test_shared_memory_is_refused_between_hosts(tmp_path: Path) -> None:
    with two_hosts() as hosts:
        script = (
            "import sys, torch; from torch.distributed import FileStore; sys.path.insert(0, '.'); "
            "from greedypipe.workers.links.place import Place; "
            f"FileStore({str(tmp_path / 'store')!r}, -1).set('link0/place1', Place.of(torch.device('cpu')).text())"
        )
        assert start(hosts, 1, sys.executable, "-c", script).wait(60) == 0
        store = FileStore(str(tmp_path / "store"), -1)
        plan = make_plan(load_config(None, RUN), 2)
        end = LinkEnd(
            LinkConfig(transport="shm"),
            store,
            "link0",
            plan.layout_after(0),
            device=torch.device("cpu"),
            patience=Patience("stage 1", 5),
        )
        with pytest.raises(ValueError, match="stage 1 shares no host memory"):
            end.send()
