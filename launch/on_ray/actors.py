"""The actors of a run: one that hosts its store, and one for every process of the pipeline."""

import os
import sys
from pathlib import Path

import ray
import torch
import yaml
from rich.console import Console, RenderableType
from torch.distributed import PrefixStore, Store, TCPStore

from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.process.environment import Environment
from greedypipe.launch.process.rank import run_told
from greedypipe.launch.reporting.screen import Rows
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import versions
from greedypipe.workers.telemetry.records import Beginning, Cause
from greedypipe.workers.telemetry.topics import STATUS, STOP

SAID = "said"
WIDTH = 120


class Rendezvous:
    """Hosts the store that the processes of one attempt meet in, and reads the board for whoever started them.

    It outlives those processes, as torchrun's agent does: what a failing one has said stays to be read.
    """

    def __init__(self, num_processes: int, attempt: int) -> None:
        self._host = ray.util.get_node_ip_address()
        self._store = TCPStore(self._host, 0, None, is_master=True, wait_for_workers=False)
        prefixed = PrefixStore(Environment.prefix(attempt), self._store)
        self._board = Board(prefixed, num_processes)
        self._screen = Mailbox(prefixed)

    def address(self) -> tuple[str, int]:
        """Host and port of the store."""
        return self._host, self._store.port

    def look(self, first_line: int) -> tuple[Rows, list[str], Cause | None]:
        """What every process is doing, what has been said from line `first_line` on, and the cause of a failure."""
        return self._board.read(STATUS), self._screen.read(first_line), self._board.cause()

    def stop(self) -> None:
        """Tells the run to save itself and end."""
        self._board.post(STOP, 0, True)


class StageProcess:
    """One process of the pipeline: does what a rank under torchrun does."""

    def versions(self) -> dict[str, str]:
        """Of what decides the bits of a run."""
        return versions()

    def run(self, variables: dict[str, str], config: str, folder: str, origin: Beginning, incarnation: int) -> int:
        """Trains this rank's stage to its end. Blocks; the process ends with it where the run fails.

        Args:
            variables: What torchrun would have put into the environment.
            config: The resolved configuration, YAML.
            folder: The run's, which every node must reach.
            origin: Where the run begins, as `Origin.note`.
            incarnation: How often this rank has been started again alone.

        Returns:
            The exit code.
        """
        os.environ |= variables
        environment = Environment.read()
        torch.set_num_threads(1)
        plan = make_plan(RunConfig.model_validate(yaml.safe_load(config)), environment.world_size)
        _log_into(Path(folder) / "logs" / f"stage{plan.placement.seat_of(environment.rank).label}.log")
        return run_told(plan, environment, Path(folder), origin, incarnation, Mailbox)


class Mailbox:
    """A screen whose lines are put into the store, for the driver to print. Where every process is, the driver reads from
    the board itself."""

    def __init__(self, store: Store) -> None:
        self._store = PrefixStore(SAID, store)
        self._next = 0

    def print(self, what: RenderableType) -> None:
        console = Console(width=WIDTH, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - closed with the console
        console.print(what, highlight=False, markup=False, soft_wrap=isinstance(what, str))
        self._store.set(str(self._next), console.export_text().rstrip("\n"))
        self._next += 1

    def show(self, rows: Rows, labels: list[str], total_steps: int) -> None:
        """No-op: the driver reads the board itself."""

    def release(self) -> None:
        """No-op: nothing is redrawn."""

    def read(self, first: int) -> list[str]:
        """What has been printed, from number `first` on."""
        found: list[str] = []
        while self._store.check([str(first + len(found))]):
            found.append(self._store.get(str(first + len(found))).decode())
        return found


def _log_into(path: Path) -> None:
    """Standard output and error of this process go to a file of the run's folder, where its user looks for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
