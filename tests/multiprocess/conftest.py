"""Starts the fork server once, so that no test pays for its imports."""

import multiprocessing

import pytest


@pytest.fixture(scope="session", autouse=True)
def _fork_server_is_warm() -> None:
    process = multiprocessing.get_context("forkserver").Process(target=int)
    process.start()
    process.join()
