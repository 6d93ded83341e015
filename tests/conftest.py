"""What all tests share: one thread, a fixed seed, and a fork server that has imported torch already."""

import multiprocessing

import pytest
import torch

from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD


def pytest_configure() -> None:
    # A process then starts in a tenth of a second instead of several; must be said before the first one starts.
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
