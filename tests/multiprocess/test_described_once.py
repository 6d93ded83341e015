"""A process asks for the data and draws the network's weights once, however it comes by its cut."""

import collections
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from greedypipe.launch import plan as plan_command
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import local_run
from greedypipe.launch.planning.run_plan import make_plan, natural_processes
from greedypipe.pipeline.networks.drawn import draw_network
from greedypipe.workers.data.catalog import describe
from tests.multiprocess.harness import TINY

COUNTED = (describe, draw_network)
ONCE = {"describe": 1, "draw_network": 1}
TWO_BLOCKS = (*TINY, "partition.blocks=2")
AUTO = ("partition.boundaries=auto", "partition.profile_s=0.05")
Replace = Callable[[object, str, object], None]


def count(called: Callable[[str], object], replace: Replace = setattr) -> None:
    """Has `called` told the name of a counted function whenever it is called, under whatever name modules know it."""

    def counting(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        called(function.__name__)
        return function(*arguments, **named)

    for function in COUNTED:
        for module in [module for name, module in sys.modules.items() if name.startswith("greedypipe.")]:
            for name in [name for name, value in vars(module).items() if value is function]:
                replace(module, name, partial(counting, function))


def count_into(folder: Path, rank: int) -> None:
    """Writes a line for every call in this process."""
    with (folder / f"calls{rank}.txt").open("w") as file:
        file.write("")

    def called(name: str) -> None:
        with (folder / f"calls{rank}.txt").open("a") as file:
            file.write(f"{name}\n")

    count(called)


@pytest.mark.parametrize("cut", [(), AUTO], ids=["explicit", "auto"])
def test_every_process_of_a_run_describes_and_draws_once(tmp_path: Path, cut: tuple[str, ...]) -> None:
    outcome = local_run.run_pipeline([*TWO_BLOCKS, *cut], 2, tmp_path / "run", enter=partial(count_into, tmp_path))
    assert outcome.exit_codes == [0, 0], outcome.printed
    for rank in range(2):
        assert collections.Counter((tmp_path / f"calls{rank}.txt").read_text().split()) == ONCE


def test_planning_describes_and_draws_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    count(calls.append, monkeypatch.setattr)
    # Three processes for two blocks: replicas, and a cut of its own.
    plan_command.make_forecast(load_config(None, [*TWO_BLOCKS, *AUTO]), 3)
    assert collections.Counter(calls) == ONCE


def test_a_driver_that_asks_how_many_processes_there_are_describes_and_draws_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    count(calls.append, monkeypatch.setattr)
    config = load_config(None, TWO_BLOCKS)
    make_plan(config, natural_processes(config))
    assert collections.Counter(calls) == ONCE
