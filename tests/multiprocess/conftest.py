"""Starts the fork server once, so that no test pays for its imports; runs benchmarks in it as well."""

import importlib
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.multiprocess.installed import copy_checkout, install, make_environment


@pytest.fixture(scope="session", autouse=True)
def _fork_server_is_warm() -> None:
    process = multiprocessing.get_context("forkserver").Process(target=int)
    process.start()
    process.join()


@pytest.fixture
def run_benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a benchmark's main function here, so that it shares the tests' fork server."""

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--smoke", *arguments])
        importlib.import_module(f"benchmarks.{name}").main()

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, under another name, without tests."""
    return copy_checkout(tmp_path_factory.mktemp("somewhere") / "my-clone")


@pytest.fixture(scope="session")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that greedypipe is installed in."""
    commands = make_environment(tmp_path_factory.mktemp("environment"))
    install(checkout, commands)
    return commands
