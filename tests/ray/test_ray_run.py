"""launch/ray_run.py on a cluster: the same bits as under torchrun, failures survived, mistakes said in a line."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greedypipe.launch import ray_run
from greedypipe.launch.checkpoints.manifest import complete_folders
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_ray import driver, gang
from greedypipe.launch.recovery.exit_codes import REQUEUE
from greedypipe.launch.reporting.status_file import read_status
from tests.multiprocess.harness import TINY, assert_equal_states, exported
from tests.ray.conftest import ROOT, Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

RUN = [*TINY, "partition.blocks=4", "training.epochs=2"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> local_run.Outcome:
    folder = tmp_path_factory.mktemp("reference") / "run"
    return local_run.run_pipeline(RUN, 1, folder, config=str(ROOT / "configs" / "digits.yaml"))


def to(folder: Path) -> list[str]:
    return [f"run.folder={folder.parent}", f"run.name={folder.name}"]


def actors_left(cluster: Cluster) -> int:
    script = (
        f"import ray; ray.init('{cluster.address}', logging_level='ERROR'); from ray.util.state import list_actors; "
        "print(len(list_actors(filters=[('state', '=', 'ALIVE')])), ray.available_resources().get('CPU'))"
    )
    command, environment = [sys.executable, "-c", script], cluster.environment
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    actors, cpus = found.stdout.split()[-2:]
    assert float(cpus) >= 4, "something is still reserved"
    return int(actors)


def test_a_cluster_gives_the_bytes_of_one_process_and_leaves_nothing_behind(
    cluster: Cluster, reference: local_run.Outcome, tmp_path: Path
) -> None:
    result = cluster.run(*RUN, *to(tmp_path / "run"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert_equal_states(network_state(tmp_path / "run"), exported(reference))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["accuracy"] == reference.summary["accuracy"]
    assert "epoch   2/2   accuracy" in result.stdout and "where the training time went" in result.stdout
    assert [path.name for path in sorted((tmp_path / "run" / "logs").iterdir())] == [f"stage{one}.log" for one in range(4)]
    assert actors_left(cluster) == 0


def test_too_few_resources_are_one_line(cluster: Cluster, tmp_path: Path) -> None:
    result = cluster.run(*RUN, "ray.cpus=3", *to(tmp_path / "run"))
    assert result.returncode == 2
    assert result.stderr.strip() == "greedypipe: 4 processes need 12 CPU, the cluster has 6"
    assert not (tmp_path / "run").exists()


def test_resources_that_others_hold_are_one_line_and_no_endless_wait(cluster: Cluster, tmp_path: Path) -> None:
    holder = cluster.start(*RUN, "training.epochs=400", *to(tmp_path / "holder"))
    wait_for_step(tmp_path / "holder", 1)
    result = cluster.run(*RUN, "ray.start_timeout_s=3", *to(tmp_path / "late"))
    holder.terminate()  # told to stop, it saves itself
    output, _ = holder.communicate(timeout=100)
    assert result.returncode == 2
    assert "waited 3 s (ray.start_timeout_s) for 4 bundles" in result.stderr and len(result.stderr.splitlines()) == 1
    assert holder.returncode == 75 and "told to stop: saved" in output


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            if all(row and row.step >= step for row in read_status(folder).stages):
                return
        except ValueError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{folder} has not come to step {step}")


def test_a_stage_that_fails_is_named_and_the_run_goes_on_from_its_checkpoint(
    cluster: Cluster, reference: local_run.Outcome, tmp_path: Path
) -> None:
    # The scripted fault strikes every attempt that comes to its step: the second one begins behind it.
    faults = ["debug.fault=raise", "debug.fault_stage=2", "debug.fault_step=14", "checkpoint.interval_steps=7"]
    slow = ["debug.slow_stage=0", "debug.slow_factor=10"]
    once = cluster.run(*RUN, *faults, *slow, *to(tmp_path / "once"))
    assert once.returncode == 1
    (said,) = [line for line in once.stderr.splitlines() if line.startswith("greedypipe: ")]
    assert said == "greedypipe: stage 2 failed: RuntimeError: scripted fault in block 2 at step 14"
    resumed = cluster.run(*RUN, "checkpoint.interval_steps=7", "--resume", "auto", *to(tmp_path / "once"))
    assert resumed.returncode == 0 and "goes on at batch" in resumed.stdout, resumed.stdout + resumed.stderr
    assert_equal_states(network_state(tmp_path / "once"), exported(reference))


def test_a_node_that_is_lost_costs_the_steps_since_the_last_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    overrides = [*RUN, "training.epochs=8", "checkpoint.interval_steps=5", "debug.slow_stage=0", "debug.slow_factor=6"]
    run = cluster.start(*overrides, "ray.max_failures=1", "ray.strategy=SPREAD", *to(tmp_path / "run"))
    wait_for_step(tmp_path / "run", 12)
    cluster.kill_node(cluster.nodes.pop())
    cluster.nodes.append(cluster.add_node())
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    assert "starts again, 1 of 1" in output and "goes on at batch" in output
    alone = local_run.run_pipeline(
        [*RUN, "training.epochs=8"], 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml")
    )
    assert_equal_states(network_state(tmp_path / "run"), exported(alone))


def test_with_isolation_only_what_was_on_a_lost_node_is_replaced_on_another(cluster: Cluster, tmp_path: Path) -> None:
    overrides = [
        *RUN,
        "training.epochs=8",
        "checkpoint.interval_steps=5",
        "debug.slow_stage=0",
        "debug.slow_factor=6",
        "link.transport=gloo",
        "faults.policy=isolate",
        "faults.timeout_s=90",
    ]
    run = cluster.start(*overrides, "ray.strategy=SPREAD", *to(tmp_path / "run"))
    wait_for_step(tmp_path / "run", 12)
    before = [row.pid for row in read_status(tmp_path / "run").stages]
    cluster.kill_node(cluster.nodes.pop())
    output, _ = run.communicate(timeout=200)
    cluster.nodes.append(cluster.add_node())
    assert run.returncode == 0, output
    after = [row.pid for row in read_status(tmp_path / "run").stages]
    replaced = [stage for stage in range(4) if before[stage] != after[stage]]
    assert 0 not in replaced and 1 <= len(replaced) <= 2, "a node has two processes at most, and stage 0 is on the first"
    assert "started again alone: " + ", ".join(f"stage {stage} 1 x" for stage in replaced) in output
    alone = local_run.run_pipeline(
        [*RUN, "training.epochs=8"], 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml")
    )
    assert_equal_states(network_state(tmp_path / "run"), exported(alone))


@pytest.mark.parametrize(("fault", "stage"), [("exit", 0), ("exit", 1), ("stop", 0), ("stop", 2)])
def test_a_stage_that_dies_or_stands_still_is_replaced_alone(
    fault: str, stage: int, cluster: Cluster, reference: local_run.Outcome, tmp_path: Path
) -> None:
    faults = [f"debug.fault={fault}", f"debug.fault_stage={stage}", "debug.fault_step=14", "checkpoint.interval_steps=5"]
    recovery = ["faults.policy=isolate", "faults.heartbeat_timeout_s=3"]
    result = cluster.run(*RUN, *faults, *recovery, *to(tmp_path / "run"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"started again alone: stage {stage} 1 x" in result.stdout
    assert_equal_states(network_state(tmp_path / "run"), exported(reference))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_saves_itself(number: signal.Signals, cluster: Cluster, tmp_path: Path) -> None:
    run = cluster.start(*RUN, "training.epochs=20000", "evaluation.every_epochs=20000", *to(tmp_path / "run"))
    wait_for_step(tmp_path / "run", 5)
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == REQUEUE, output
    assert len(complete_folders(tmp_path / "run")) == 1
    assert actors_left(cluster) == 0


def test_a_wrong_address_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch" / "ray_run.py"), "--address", "127.0.0.1:1", *RUN, *to(tmp_path / "run")]
    environment = cluster.environment | {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    said = [line for line in result.stderr.splitlines() if line.startswith("greedypipe: ")]
    assert result.returncode == 2 and len(said) == 1 and "--address: got 127.0.0.1:1" in said[0], result.stderr


def test_other_versions_are_one_line(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/ray_run.py", "--address", cluster.address, *RUN, *to(tmp_path / "run")])
    monkeypatch.setattr(gang, "versions", lambda: {"python": "3.99", "torch": "9.9"})
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        ray_run.main()
    assert left.value.code == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("greedypipe: ")]
    assert "stage 0 would run with python 3." in said
    assert said.endswith("but here is python 3.99, torch 9.9: use one version")


def test_another_version_of_ray_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mismatch(*arguments: object, **settings: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.7\n")

    monkeypatch.setattr(driver.ray, "init", mismatch)
    monkeypatch.setattr(sys, "argv", ["launch/ray_run.py", "--address", "auto", *RUN, *to(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        ray_run.main()
    assert left.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("greedypipe: --address: got auto: Version mismatch: The cluster was started with: Ray: 2.59.0")
