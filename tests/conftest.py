"""What all tests share: a thread, a seed, a fork server that has imported torch already, and signals as of a terminal."""

import multiprocessing
import signal

import pytest
import torch

from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD


def pytest_configure() -> None:
    # A process then starts in a tenth of a second instead of several; must be said before the first one starts.
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    # Under nohup it is ignored, and so are the signals that tests send.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
