"""`greedypipe train` without torchrun, as users type it: how it ends, whatever happens to it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_host.host_run import worst
from greedypipe.launch.reporting.status_file import read_status
from tests.multiprocess.harness import TINY, assert_equal_states, exported

ROOT = Path(__file__).resolve().parents[2]
LONG = [*TINY, "training.epochs=2000", "evaluation.every_epochs=2000", "checkpoint.interval_steps=5"]


class Started:
    """A run in a process group of its own, two stages, in the folder `run` of `parent`."""

    def __init__(self, parent: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "greedypipe", "train", "--stages", "2", *arguments]
        settings = [f"run.folder={parent}", "run.name=run"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.folder = parent / "run"
        self.process = subprocess.Popen([*command, *settings], cwd=ROOT, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]

    def rank(self, rank: int) -> int:
        """The process id of a rank, once a checkpoint is behind it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if list(self.folder.glob("checkpoints/*/manifest.json")):
                return read_status(self.folder).stages[rank].pid
            time.sleep(0.02)
        raise AssertionError(self.process.communicate())

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts a run in `tmp_path`; whatever is left of it when the test ends, well or badly, is killed."""
    runs: list[Started] = []

    def started(*arguments: str) -> Started:
        runs.append(Started(tmp_path, *arguments))
        return runs[-1]

    yield started
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate()


def descendants(ancestor: int) -> set[int]:
    """All processes below one, the fork server and its like included."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, size = {ancestor}, 0
    while size < len(found):
        size, found = len(found), found | {pid for pid, parent in parents.items() if parent in found}
    return found - {ancestor}


def assert_all_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]


@pytest.mark.parametrize(
    ("strike", "code", "said"),
    [
        (lambda run: os.killpg(run.process.pid, signal.SIGTERM), 75, "told to stop: saved"),
        (lambda run: run.process.send_signal(signal.SIGINT), 130, "greedypipe: interrupted"),
        (lambda run: os.kill(run.rank(1), signal.SIGKILL), 1, "greedypipe: stage 1 (blocks 2-3, process "),
        (lambda run: run.process.kill(), -9, ""),
    ],
    ids=["told to stop", "Ctrl-C", "a rank is killed", "the launcher is killed"],
)
def test_however_it_ends_the_code_says_so_and_nobody_is_left(
    strike: Callable[[Started], object], code: int, said: str, start: Callable[..., Started]
) -> None:
    run = start(*LONG)
    run.rank(1)
    family = descendants(run.process.pid)
    assert len(family) >= 4, "two ranks, the fork server, and what watches over its semaphores"
    strike(run)
    returned, out, errors = run.end()
    assert returned == code, errors
    assert said in out + errors
    assert said == "" or "Traceback" not in errors
    assert_all_gone(family)


@pytest.mark.slow
def test_a_stage_comes_back_alone_and_a_run_goes_on_with_the_same_bits(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    settings = [*TINY, "training.epochs=8", "evaluation.every_epochs=8", "checkpoint.interval_steps=5"]
    slow = ["debug.slow_stage=0", "debug.slow_factor=3", "faults.policy=isolate"]
    run = start(*settings, *slow)
    os.kill(run.rank(1), signal.SIGKILL)
    code, out, errors = run.end()
    assert code == 0, errors
    assert "stage 1 was killed by signal SIGKILL: started again alone" in errors
    assert "started again alone: stage 1 1 x" in out
    alone = local_run.run_pipeline(settings, 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml"))
    assert_equal_states(network_state(run.folder), exported(alone))
    code, out, errors = start(*settings, *slow, "--resume", "auto").end()
    assert code == 0 and "goes on at batch 96" in out, errors


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (["buffers.capcity=3"], "command line: buffers.capcity: unknown key; did you mean buffers.capacity?"),
        (["partition.blocks=1"], "2 stages for 1 blocks"),
        (["--resume", "nowhere"], "--resume: got nowhere"),
    ],
)
def test_what_is_wrong_is_said_once_before_anything_starts(
    wrong: list[str], complaint: str, start: Callable[..., Started], tmp_path: Path
) -> None:
    code, out, errors = start(*TINY, *wrong).end()
    assert code == 2 and out == ""
    (line,) = errors.splitlines()
    assert line.startswith("greedypipe: ") and complaint in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 75], 75), ([75, 1], 1), ([0, -9], 1), ([1, 130], 130), ([2, -9], 2), ([17, 0], 1)],
)
def test_the_worst_rank_gives_the_code(codes: list[int], code: int) -> None:
    assert worst(codes) == code


def test_a_lone_rank_that_is_killed_is_named_by_its_launcher(start: Callable[..., Started]) -> None:
    run = start(*LONG, "--stages", "1")
    os.kill(run.rank(0), signal.SIGKILL)
    code, _, errors = run.end()
    assert code == 1 and errors == "greedypipe: stage 0 was killed by signal SIGKILL\n"
    assert json.loads((run.folder / "summary.json").read_text())["cause"] == "stage 0 was killed by signal SIGKILL"
