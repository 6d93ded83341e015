"""The actors of a run: one that hosts its store, and one for each process of the pipeline."""

import os
import sys
from pathlib import Path

import ray
import torch
import yaml
from rich.console import RenderableType
from torch.distributed import PrefixStore, Store

from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.process.environment import Environment, host_store
from greedypipe.launch.process.launcher import count_gpus_without_driver
from greedypipe.launch.process.rank import run_told
from greedypipe.launch.recovery.life import Life
from greedypipe.launch.reporting.console import PlainConsole
from greedypipe.launch.reporting.screen import Rows
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import versions
from greedypipe.workers.telemetry.records import Beginning, Cause
from greedypipe.workers.telemetry.topics import STATUS, STOP

PRINTED = "printed"
WIDTH = 120


class Rendezvous:
    """Hosts the store in which the processes of one attempt meet, and reads their board for the driver.

    Like torchrun's agent it outlives those processes, so that what a failing one reported can still be read. The store
    listens at the address by which Ray knows the node, and at no other.
    """

    def __init__(self, num_processes: int, attempt: int) -> None:
        self._host = ray.util.get_node_ip_address()
        self._store, self._port = host_store(self._host)
        prefixed = PrefixStore(Environment.prefix(attempt), self._store)
        self._board = Board(prefixed, num_processes)
        self._screen = RemoteScreen(prefixed)

    def address(self) -> tuple[str, int]:
        """Host and port of the store."""
        return self._host, self._port

    def look(self, first_line: int) -> tuple[Rows, list[str], Cause | None]:
        """What each process is doing, the lines printed from number `first_line` on, and the cause of a failure, if any."""
        return self._board.read(STATUS), self._screen.read(first_line), self._board.cause()

    def stop(self) -> None:
        """Has the run save itself and end. Does not wait for that."""
        self._board.post(STOP, 0, True)


class StageProcess:
    """One process of the pipeline: does what a rank under torchrun does."""

    def versions(self) -> dict[str, str]:
        """Versions of Python and torch here; the bits of a run depend on them."""
        return versions()

    def run(self, variables: dict[str, str], config: str, folder: str, origin: Beginning, incarnation: int) -> int:
        """Trains this rank's stage to its end. Blocks; the process ends with it where the run fails.

        Args:
            variables: Environment variables that torchrun would have set.
            config: The resolved configuration, YAML.
            folder: The run's folder, which every node must reach.
            origin: Where the run begins, as `Origin.note` gives it.
            incarnation: How often this rank has been started again alone.

        Returns:
            The exit code.
        """
        os.environ |= variables
        count_gpus_without_driver()
        environment = Environment.read()
        torch.set_num_threads(1)
        plan = make_plan(RunConfig.model_validate(yaml.safe_load(config)), environment.world_size)
        _log_into(Path(folder) / "logs" / f"stage{plan.placement.seat_of(environment.rank).label}.log")
        # The driver is this rank's keeper, and reads its heartbeats from the board.
        return run_told(plan, environment, Path(folder), origin, Life(incarnation), RemoteScreen)


class RemoteScreen:
    """Rank 0's screen: puts lines into the store, and the driver prints them. The driver reads the board by itself."""

    def __init__(self, store: Store) -> None:
        self._store = PrefixStore(PRINTED, store)
        self._next = 0

    def print(self, what: RenderableType) -> None:
        file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed with the console
        console = PlainConsole(width=WIDTH, record=True, file=file)
        console.print(what, soft_wrap=isinstance(what, str))
        self._store.set(str(self._next), console.export_text().rstrip("\n"))
        self._next += 1

    def show(self, rows: Rows, labels: list[str], total_steps: int) -> None:
        """No-op: the driver reads the board by itself."""

    def release(self) -> None:
        """No-op: nothing is redrawn here."""

    def read(self, first: int) -> list[str]:
        """The lines that have been printed, from number `first` on. Does not block."""
        found: list[str] = []
        while self._store.check([str(first + len(found))]):
            found.append(self._store.get(str(first + len(found))).decode())
        return found


def _log_into(path: Path) -> None:
    """Redirects standard output and error to a file of the run's folder, where users look for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
