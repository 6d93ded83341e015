"""Waits for another process that can be given up."""

import threading
import time

import pytest

from greedypipe.workers.links.patience import GivenUp, Patience

SHORT_S, LONG_S = 0.2, 30.0


def test_a_call_gives_its_result_or_its_error() -> None:
    patience = Patience("stage 1", LONG_S)
    assert patience.call(lambda: 7) == 7
    assert patience.call(lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        patience.call(lambda: 1 / 0)


def test_a_call_that_does_not_return_ends_at_the_deadline_and_names_the_peer() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"waited 0\.2 s to connect to stage 1"):
        Patience("stage 1", SHORT_S).call(lambda: time.sleep(LONG_S))
    assert time.monotonic() - started < 10 * SHORT_S


def test_a_call_that_does_not_return_can_be_given_up() -> None:
    over = threading.Event()
    threading.Timer(SHORT_S, over.set).start()
    started = time.monotonic()
    with pytest.raises(GivenUp, match="stage 1 has been started again"):
        Patience("stage 1", LONG_S, over.is_set).call(lambda: time.sleep(LONG_S))
    assert time.monotonic() - started < 10 * SHORT_S
