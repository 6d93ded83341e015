"""`greedypipe train` without torchrun, as users type it: how it ends, whatever happens to it."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_host.host_run import worst
from tests.multiprocess.harness import TINY, assert_equal_states, exported
from tests.multiprocess.started import DIGITS, ROOT, TRAIN, Started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts a run in `tmp_path`; whatever is left of it when the test ends, well or badly, is killed."""
    runs: list[Started] = []

    def started(*arguments: str) -> Started:
        runs.append(Started(tmp_path, TRAIN, *arguments))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()


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
        pytest.param(["partition.blocks=1"], "2 stages for 1 blocks", marks=pytest.mark.slow),
        pytest.param(["--resume", "nowhere"], "--resume: got nowhere", marks=pytest.mark.slow),
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


@pytest.mark.slow
def test_a_lone_rank_that_is_killed_is_named_by_its_launcher(start: Callable[..., Started]) -> None:
    run = start(*DIGITS, "--stages", "1")
    os.kill(run.rank(0), signal.SIGKILL)
    code, _, errors = run.end()
    assert code == 1 and errors == "greedypipe: stage 0 was killed by signal SIGKILL\n"
    assert json.loads((run.folder / "summary.json").read_text())["cause"] == "stage 0 was killed by signal SIGKILL"
