"""Who counts as silent; what the supervisor does about it is in tests/multiprocess."""

import subprocess
import sys
from dataclasses import replace

from greedypipe.launch.recovery.pulses import Pulses
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.machine import is_alive
from greedypipe.workers.telemetry.records import StageRow
from tests.records import make_row


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


ROW = make_row()


def beat(number: int, activity: Activity = Activity.COMPUTING) -> StageRow:
    return replace(ROW, unix_s=float(number), activity=activity)


def test_a_row_that_does_not_change_for_the_timeout_is_silent() -> None:
    clock = Clock()
    pulses = Pulses(2, 4.0, clock)
    for second in range(10):
        clock.now = float(second)
        silent = pulses.silent([beat(second), beat(0)])
        assert silent == ([beat(0)] if second > 4 else [])


def test_a_stage_that_is_done_or_has_not_begun_is_never_silent() -> None:
    clock = Clock()
    pulses = Pulses(2, 4.0, clock)
    for second in range(20):
        clock.now = float(second)
        assert pulses.silent([None, beat(0, Activity.DONE)]) == []


def test_nobody_is_silent_because_this_process_was_asleep() -> None:
    clock = Clock()
    pulses = Pulses(1, 4.0, clock)
    assert pulses.silent([beat(0)]) == []
    clock.now = 100.0
    assert pulses.silent([beat(0)]) == []
    for second in range(101, 106):
        clock.now = float(second)
        silent = pulses.silent([beat(0)])
    assert silent == [beat(0)]


def test_a_process_that_has_ended_is_not_alive_even_before_its_parent_looks() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(process.pid)
    process.communicate(b"\n")
    assert not is_alive(process.pid)
