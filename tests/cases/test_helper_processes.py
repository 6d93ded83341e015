"""Inputs and events that once ended a run badly: processes that help it, and what it needs of its host."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greedypipe.launch.checkpoints.manifest import complete_folders
from greedypipe.launch.on_host import local_run
from greedypipe.launch.reporting.status_file import read_status
from tests.multiprocess.harness import TINY, run_pipeline
from tests.multiprocess.started import BARE, DIGITS, ROOT, TORCHRUN, Started, assert_all_gone, descendants, with_loaders
from tests.multiprocess.test_failures import causes

slow = pytest.mark.slow
READER = """
import os, signal, subprocess, sys
run = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(run.pid, flush=True)
for line in run.stdout:
    if line.startswith("epoch   2/"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def runs() -> Iterator[list[Started]]:
    """The runs of a test, which end with it."""
    started: list[Started] = []
    yield started
    for run in started:
        run.kill()


@pytest.mark.parametrize("stderr", ["pipe", pytest.param("file", marks=slow)])
def test_a_run_whose_reader_is_killed_ends(stderr: str, tmp_path: Path) -> None:
    long = [*TINY, "partition.blocks=1", "training.epochs=2000", f"run.folder={tmp_path}"]
    script = READER if stderr == "pipe" else READER.replace("subprocess.STDOUT", f"open({str(tmp_path / 'errors')!r}, 'w')")
    reader = subprocess.Popen([sys.executable, "-c", script, *BARE, *long], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert reader.stdout
    pid = int(reader.stdout.readline())
    family = {pid, *descendants(pid)}
    try:
        assert reader.wait(60) == -signal.SIGKILL
        assert_all_gone(family)
    finally:
        reader.stdout.close()
        for one in family:
            subprocess.run(["kill", "-9", str(one)], stderr=subprocess.DEVNULL, check=False)


def kill_a_keeper(folder: Path, stage: int) -> int:
    """Kills the keeper of a stage that trains, and returns its process id."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        rows = read_status(folder).stages if (folder / "status.json").exists() else []
        if len(rows) > stage and (row := rows[stage]) and row.step > 2:
            keeper = int(Path(f"/proc/{row.pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(keeper, signal.SIGKILL)
            return keeper
        time.sleep(0.02)
    raise AssertionError(f"stage {stage} does not train")


@pytest.mark.parametrize("policy", ["replay", "fifo"])
def test_a_keeper_that_is_killed_is_named_and_ends_the_run(policy: str, tmp_path: Path) -> None:
    struck: list[float] = []

    def strike() -> None:
        kill_a_keeper(tmp_path / "run0", 1)
        struck.append(time.monotonic())

    striker = threading.Thread(target=strike)
    striker.start()
    settings = [*TINY, "partition.blocks=3", "training.epochs=2000", "faults.policy=isolate", "faults.timeout_s=300"]
    outcome = run_pipeline([*settings, f"buffers.policy={policy}", "evaluation.every_epochs=2000"], 3, tmp_path)
    striker.join()
    assert time.monotonic() - struck[0] < 5
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1: its keeper (process ") and cause.endswith("died without a word")
    assert outcome.exit_codes == [1, -9, 1]


def kill_own_keeper(rank: int) -> None:
    if rank == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(30)


def test_a_keeper_that_is_killed_before_its_child_has_joined_is_named_too(tmp_path: Path) -> None:
    settings = [*TINY, "partition.blocks=3", "faults.policy=isolate", "faults.timeout_s=300"]
    started = time.monotonic()
    outcome = local_run.run_pipeline(settings, 3, tmp_path / "run", enter=kill_own_keeper)
    assert time.monotonic() - started < 8
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1: its keeper (process ")
    assert outcome.exit_codes == [1, -9, 1]


AGENT = """
import subprocess, sys
rank = "from greedypipe.workers.lifeline import end_with_agent; end_with_agent(); print(flush=True); input()"
print(subprocess.Popen([sys.executable, "-c", rank], stdout=sys.stderr).pid, flush=True)
input()
"""


@pytest.mark.parametrize("is_torchrun", [True, False])
def test_a_rank_that_does_not_run_yet_ends_with_torchruns_agent(is_torchrun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if is_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", AGENT], cwd=ROOT, **pipes, text=True) as agent:  # type: ignore[call-overload]
        rank = int(agent.stdout.readline())
        assert agent.stderr.readline() == "\n"
        agent.kill()
        agent.wait()
        if is_torchrun:
            assert_all_gone({rank})
        else:
            time.sleep(0.2)
            assert Path(f"/proc/{rank}").exists()


@slow
@pytest.mark.parametrize("policy", ["restart", "isolate"])
def test_ranks_that_import_end_with_an_agent_that_is_killed(policy: str, tmp_path: Path, runs: list[Started]) -> None:
    runs.append(Started(tmp_path, TORCHRUN, *DIGITS, f"faults.policy={policy}", "faults.timeout_s=300"))
    (run,) = runs
    deadline = time.monotonic() + 60
    while len(run.family()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    family = run.family()
    run.process.kill()
    assert len(family) == 3
    assert_all_gone(family - {run.process.pid})


@pytest.mark.parametrize("limit", [40, pytest.param(64, marks=slow)])
def test_few_open_files_are_one_line(limit: int, tmp_path: Path) -> None:
    settings = [*with_loaders(tmp_path), "data.loader_workers=6", f"run.folder={tmp_path}"]
    result = subprocess.run(
        [*BARE, *settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"greedypipe: open files: got a limit of {limit} (ulimit -n), allowed: ")


@slow
def test_a_small_dev_shm_is_enough_for_loader_processes(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make a mount namespace")
    command = [*TORCHRUN, *with_loaders(tmp_path), "training.epochs=2", "evaluation.every_epochs=1"]
    mount = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    inside = ["unshare", "-m", "bash", "-c", mount, "bash", *command, f"run.folder={tmp_path}"]
    result = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr


@slow
@pytest.mark.parametrize("policy", ["restart", "isolate"])
def test_sigterm_to_every_process_of_a_job_step_saves(policy: str, tmp_path: Path, runs: list[Started]) -> None:
    settings = [*with_loaders(tmp_path), "checkpoint.interval_steps=0", f"faults.policy={policy}"]
    runs.append(Started(tmp_path, TORCHRUN, *settings))
    (run,) = runs
    run.rank(0)
    family = run.family()
    for pid in family:
        os.kill(pid, signal.SIGTERM)
    run.end()
    assert complete_folders(run.folder)
    assert_all_gone(family)


@slow
@pytest.mark.parametrize("how", ["kill", "raise", "isolate"])
def test_loader_processes_end_with_their_rank(how: str, tmp_path: Path, runs: list[Started]) -> None:
    more = {
        "kill": [],
        "raise": ["debug.fault=raise", "debug.fault_step=600"],
        "isolate": ["faults.policy=isolate", "faults.max_restarts=1", "training.epochs=300", "faults.timeout_s=60"],
    }
    runs.append(Started(tmp_path, TORCHRUN, *with_loaders(tmp_path), *more[how]))
    (run,) = runs
    rank = run.rank(0)
    helpers = descendants(rank)
    assert len(helpers) >= 4, "two loader processes, their fork server, and what watches over its semaphores"
    family = run.family()
    if how != "raise":
        os.kill(rank, signal.SIGKILL)
        assert_all_gone(helpers)
    code, _, errors = run.end()
    assert code == (0 if how == "isolate" else 1), errors
    assert_all_gone(family)


@slow
def test_a_run_on_digits_needs_no_helper(tmp_path: Path, runs: list[Started]) -> None:
    runs.append(Started(tmp_path, TORCHRUN, *DIGITS))
    assert not descendants(runs[0].rank(0))
