"""Signals to the process that starts a run on a cluster."""

import os
import signal

import pytest

from greedypipe.launch.on_ray.stops import Stops, ToldToStop
from greedypipe.launch.recovery import stopping
from greedypipe.launch.recovery.exit_codes import INTERRUPTED, REQUEUE
from greedypipe.workers.lifeline import STOP_SIGNALS


@pytest.mark.parametrize("number", sorted(STOP_SIGNALS))
def test_before_the_processes_run_any_of_them_ends_the_waiting(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(ToldToStop, match=rf"told to stop \({number.name}\) before training began") as stop, Stops().heard():
        os.kill(os.getpid(), number)
        signal.pause()
    assert stop.value.code == REQUEUE and signal.getsignal(number) == before


def test_while_they_run_the_first_only_asks_and_a_later_one_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stops = Stops()
    with stops.heard(), stops.watched():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.request.is_made and not stops.request.is_urgent
        monkeypatch.setattr(stopping, "AGAIN_S", 0.0)
        with pytest.raises(ToldToStop, match=r"ended at once by a second signal \(SIGTERM\)") as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.value.code == INTERRUPTED
        os.kill(os.getpid(), signal.SIGTERM)
