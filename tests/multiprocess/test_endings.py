"""However a run is ended, with loader processes or without: the code says so, it is saved if it can be, nobody is left."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from greedypipe.workers.lifeline import STOP_SIGNALS
from tests.multiprocess.started import BARE, DIGITS, TORCHRUN, TRAIN, Started, assert_all_gone, with_loaders

SAVED, KILLED = "told to stop: saved", "stage 0 (block 0, process "
slow = pytest.mark.slow

Start = Callable[[Sequence[str]], Started]


@pytest.fixture(params=["loaders", pytest.param("digits", marks=slow)])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    settings = with_loaders(tmp_path) if request.param == "loaders" else DIGITS
    runs: list[Started] = []

    def started(command: Sequence[str], *more: str) -> Started:
        runs.append(Started(tmp_path, command, *settings, *more))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()


def to_launcher(number: signal.Signals) -> Callable[[Started], None]:
    return lambda run: run.process.send_signal(number)


def to_group(number: signal.Signals) -> Callable[[Started], None]:
    return lambda run: os.killpg(run.process.pid, number)


def to_all(number: signal.Signals) -> Callable[[Started], None]:
    def strike(run: Started) -> None:
        for pid in run.family():
            os.kill(pid, number)

    return strike


def to_rank(rank: int, number: signal.Signals) -> Callable[[Started], None]:
    return lambda run: os.kill(run.rank(rank), number)


def parameters() -> Iterator[object]:
    yield pytest.param(TRAIN, to_group(signal.SIGINT), 75, SAVED, id="train-Ctrl-C", marks=slow)
    yield pytest.param(TRAIN, to_launcher(signal.SIGHUP), 75, SAVED, id="train-terminal closed", marks=slow)
    yield pytest.param(TRAIN, to_rank(0, signal.SIGKILL), 1, KILLED, id="train-rank 0 killed", marks=slow)
    yield pytest.param(TRAIN, to_launcher(signal.SIGKILL), -9, "", id="train-launcher killed", marks=slow)
    yield pytest.param(TRAIN, to_all(signal.SIGTERM), 75, SAVED, id="train-SIGTERM to all")
    yield pytest.param(TRAIN, to_rank(1, signal.SIGTERM), 75, SAVED, id="train-rank 1 told", marks=slow)
    yield pytest.param(BARE, to_launcher(signal.SIGKILL), -9, "", id="bare-killed", marks=slow)
    for number in sorted(STOP_SIGNALS):
        yield pytest.param(BARE, to_group(number), 75, SAVED, id=f"bare-{number.name}", marks=slow)
    # torchrun's own code is 1 for any but 0 of its processes.
    for strike in (to_launcher, to_group, to_all):
        yield pytest.param(TORCHRUN, strike(signal.SIGTERM), 1, SAVED, id=f"torchrun-{strike.__name__}", marks=slow)
    yield pytest.param(TORCHRUN, to_rank(0, signal.SIGKILL), 1, KILLED, id="torchrun-rank 0 killed", marks=slow)
    yield pytest.param(TORCHRUN, to_launcher(signal.SIGKILL), -9, "", id="torchrun-killed", marks=slow)


@pytest.mark.parametrize(("command", "strike", "code", "said"), [*parameters()])
def test_the_code_says_how_and_nobody_is_left(
    command: Sequence[str], strike: Callable[[Started], None], code: int, said: str, start: Start
) -> None:
    run = start(command)
    run.rank(0)
    family = run.family()
    strike(run)
    returned, out, errors = run.end()
    assert returned in (code, -signal.SIGTERM if command is TORCHRUN else code), errors
    assert said.replace("block 0", "") in (out + errors).replace("blocks 0-1", "").replace("block 0", "")
    assert_all_gone(family)


@slow
@pytest.mark.parametrize("policy", ["restart", "isolate"])
def test_a_run_that_is_stopped_before_it_trains_ends_at_once(policy: str, start: Start) -> None:
    run = start(TRAIN, f"faults.policy={policy}", "partition.boundaries=auto", "partition.profile_s=30")
    deadline = time.monotonic() + 30
    # The launcher, the fork server, what watches over its semaphores, and two ranks.
    while len(family := run.family()) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    started = time.monotonic()
    for pid in family:
        with contextlib.suppress(ProcessLookupError):  # the ones told first may have ended it
            os.kill(pid, signal.SIGTERM)
    code, _, errors = run.end()
    assert code == 75, errors
    assert "before training began: nothing to save" in errors and "Traceback" not in errors
    assert time.monotonic() - started < 5
    assert_all_gone(family)
