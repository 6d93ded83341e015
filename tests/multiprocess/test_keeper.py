"""A rank whose child is started again; every keeper in a process of its own, as it forks and takes signals."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest

from greedypipe.launch.config.sections import FaultsConfig
from greedypipe.launch.recovery.exit_codes import ALONE, FAILED, REQUEUE
from greedypipe.launch.recovery.keeper import run_kept
from greedypipe.launch.recovery.life import Life
from greedypipe.launch.recovery.stopping import hearing
from greedypipe.workers.lifeline import STOP_SIGNALS

MAX_RESTARTS = 2


def killed(life: Life) -> int:
    if life.incarnation < MAX_RESTARTS:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def left(code: int, life: Life) -> int:
    if life.incarnation < MAX_RESTARTS:
        os._exit(code)
    return 0


def always_left(code: int, life: Life) -> int:
    os._exit(code)


def returned(code: int, life: Life) -> int:
    return code


def raised(error: BaseException, life: Life) -> int:
    raise error


def told_to_end(life: Life) -> int:
    with hearing(lambda number, frame: os._exit(REQUEUE)):
        return asleep(life)


def hears_late(life: Life) -> int:
    Path(f"ready{os.getpid()}").touch()
    time.sleep(1)
    return told_to_end(life)


class Log:
    """A keeper's voice, for reading."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def begin(self) -> None:
        print("begins", file=self._file)

    def end(self) -> None:
        print("ends", file=self._file)

    def give_up(self, reason: str) -> None:
        print(reason, file=self._file)


def asleep(life: Life) -> int:
    Path(f"ready{os.getpid()}").touch()
    time.sleep(60)
    return 0


def stands_still(life: Life) -> int:
    if life.incarnation == 0:
        for _ in range(6):  # for longer than a heartbeat timeout
            life.beat()
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def begins_slowly(life: Life) -> int:
    time.sleep(1.5)
    return 0


Work = Callable[[Life], int]


def _keep(work: Work, policy: str, folder: Path) -> None:
    os.chdir(folder)
    with Path("log").open("a", buffering=1) as log:

        def noted(life: Life) -> int:
            log.write(f"{life.incarnation}\n")
            return work(life)

        bound = {"max_restarts": MAX_RESTARTS} if policy == "isolate" else {}
        config = FaultsConfig.model_validate({"policy": policy, "heartbeat_timeout_s": 1, **bound})
        sys.exit(run_kept("stage 1", config, noted, Log(log)))


def start(work: Work, folder: Path, policy: str = "isolate") -> multiprocessing.Process:
    process = multiprocessing.get_context("forkserver").Process(target=_keep, args=(work, policy, folder))
    process.start()
    return process  # type: ignore[return-value]


def outcome(work: Work, folder: Path, policy: str = "isolate") -> tuple[int | None, list[str]]:
    process = start(work, folder, policy)
    process.join(30)
    return process.exitcode, (folder / "log").read_text().splitlines()


def child_of(folder: Path) -> int:
    deadline = time.monotonic() + 20
    while not (ready := list(folder.glob("ready*"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return int(ready[0].name.removeprefix("ready"))


@pytest.mark.parametrize("work", [killed, partial(left, ALONE), partial(left, 17)])
def test_a_child_that_dies_is_started_again(work: Work, tmp_path: Path) -> None:
    assert outcome(work, tmp_path) == (0, ["begins", "0", "1", "2"])


def test_a_child_that_stands_still_is_killed_and_started_again(tmp_path: Path) -> None:
    assert outcome(stands_still, tmp_path) == (0, ["begins", "0", "1"])


def test_a_child_may_take_its_time_to_begin(tmp_path: Path) -> None:
    assert outcome(begins_slowly, tmp_path) == (0, ["begins", "0"])


def test_one_that_dies_too_often_ends_the_run(tmp_path: Path) -> None:
    reason = "died 3 times (faults.max_restarts=2)"
    assert outcome(partial(always_left, 17), tmp_path) == (FAILED, ["begins", "0", "1", "2", reason])


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (partial(returned, REQUEUE), REQUEUE),
        (partial(raised, SystemExit(2)), 2),
        (partial(always_left, FAILED), FAILED),
        (partial(raised, ValueError("wrong")), FAILED),
    ],
)
def test_a_run_that_has_ended_is_not_started_again(work: Work, code: int, tmp_path: Path) -> None:
    assert outcome(work, tmp_path) == (code, ["begins", "0", *(["ends"] if code == REQUEUE else [])])


def test_with_restart_the_process_does_its_work_itself(tmp_path: Path) -> None:
    assert outcome(partial(returned, 5), tmp_path, policy="restart") == (5, ["0"])


@pytest.mark.parametrize("number", sorted(STOP_SIGNALS))
def test_a_signal_is_forwarded_to_the_child(number: signal.Signals, tmp_path: Path) -> None:
    process = start(told_to_end, tmp_path)
    child_of(tmp_path)
    os.kill(process.pid or 0, number)
    process.join(20)
    assert process.exitcode == REQUEUE


def test_a_signal_that_comes_before_the_child_hears_it_waits_for_it(tmp_path: Path) -> None:
    process = start(hears_late, tmp_path)
    os.kill(child_of(tmp_path), signal.SIGTERM)
    process.terminate()
    process.join(20)
    assert process.exitcode == REQUEUE
    assert (tmp_path / "log").read_text().splitlines() == ["begins", "0", "ends"], "it must not be started again"


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_child_dies_with_its_keeper(is_stopped: bool, tmp_path: Path) -> None:
    process = start(asleep, tmp_path)
    child = child_of(tmp_path)
    if is_stopped:
        os.kill(child, signal.SIGSTOP)
    process.kill()
    process.join(20)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
