"""A process asks for the data and draws the network's weights once, however it comes by its cut."""

import collections
import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from greedypipe.launch import run as run_command
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import local_run
from greedypipe.launch.planning.best_cut import make_forecast
from greedypipe.launch.planning.run_plan import make_plan, natural_processes
from greedypipe.pipeline import build
from greedypipe.workers.data.sets.digits import Digits
from tests.multiprocess.harness import TINY

ONCE = {"describe_whole": 1, "draw_network": 1}
TWO_BLOCKS = (*TINY, "partition.blocks=2")
AUTO = ("partition.boundaries=auto", "partition.profile_s=0.05")
CUTS = pytest.mark.parametrize("cut", [(), AUTO], ids=["explicit", "auto"])


def count(called: Callable[[str], object], replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Makes describing the data and drawing the network call `called` with their name."""
    for owner, name in ((Digits, "describe_whole"), (build, "draw_network")):
        replace(owner, name, _counting(getattr(owner, name), called))


def _counting(function: Callable[..., Any], called: Callable[[str], object]) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        called(function.__name__)
        return function(*arguments)

    return counting


def count_into(folder: Path, rank: int) -> None:
    """Writes a line for every call in this process from now on."""
    file = (folder / f"calls{rank}.txt").open("w", buffering=1)
    count(lambda name: file.write(f"{name}\n"))


def calls_of(folder: Path, rank: int) -> dict[str, int]:
    return collections.Counter((folder / f"calls{rank}.txt").read_text().split())


def run_alone(folder: Path, overrides: tuple[str, ...]) -> None:
    """What launch/run.py does as the only process of a run."""
    count_into(folder, 0)
    sys.argv = ["launch/run.py", f"run.folder={folder / 'runs'}", *overrides]
    run_command.main()


@CUTS
def test_a_run_describes_and_draws_once(tmp_path: Path, cut: tuple[str, ...]) -> None:
    process = multiprocessing.get_context("forkserver").Process(target=run_alone, args=(tmp_path, (*TWO_BLOCKS, *cut)))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert calls_of(tmp_path, 0) == ONCE


@CUTS
def test_no_rank_asks_again_once_it_has_its_plan(tmp_path: Path, cut: tuple[str, ...]) -> None:
    outcome = local_run.run_pipeline([*TWO_BLOCKS, *cut], 2, tmp_path / "run", enter=partial(count_into, tmp_path))
    assert outcome.exit_codes == [0, 0], outcome.printed
    assert [calls_of(tmp_path, rank) for rank in range(2)] == [{}, {}]


def test_planning_describes_and_draws_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    count(calls.append, monkeypatch.setattr)
    # Three processes for two blocks: replicas, and a cut of its own.
    make_forecast(load_config(None, [*TWO_BLOCKS, *AUTO]), 3)
    assert collections.Counter(calls) == ONCE


def test_a_driver_that_asks_how_many_processes_there_are_describes_and_draws_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    count(calls.append, monkeypatch.setattr)
    config = load_config(None, TWO_BLOCKS)
    make_plan(config, natural_processes(config))
    assert collections.Counter(calls) == ONCE
