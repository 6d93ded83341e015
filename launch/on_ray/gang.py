"""All processes of one attempt at a run on a cluster: started together, watched, ended together."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group_table

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import dump_config
from greedypipe.launch.on_ray.actors import Rendezvous, StageProcess
from greedypipe.launch.on_ray.reservation import place, wait_until_all_answer
from greedypipe.launch.on_ray.resources import seating
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.exit_codes import FAILED
from greedypipe.launch.recovery.pulses import Pulses
from greedypipe.launch.recovery.stopping import StopRequest
from greedypipe.launch.recovery.supervisor import ENDS
from greedypipe.launch.reporting.screen import Rows, Screen
from greedypipe.workers.telemetry.machine import versions
from greedypipe.workers.telemetry.records import Cause

LOOK_S = 0.5
GRACE_S = 5.0
"""How long to look for the cause behind the first process that ended: an echo may arrive before it."""


@dataclass(frozen=True)
class Ending:
    """How an attempt has ended: the worst exit code, and the cause of a failure."""

    code: int
    cause: str = ""


class StartFailed(Exception):
    """The actors of an attempt did not start; the message says why, in one line."""


@dataclass
class Gang:
    """The actors of one attempt at a run.

    Args:
        group: One bundle for each rank.
        attempt: How often the run has been started again.
        variables: For the environment of all processes, such as PYTHONPATH.
    """

    plan: Plan
    group: PlacementGroup
    attempt: int
    variables: dict[str, str]
    actors: dict[int, Any] = field(default_factory=dict)
    incarnations: dict[int, int] = field(default_factory=dict)
    rendezvous: Any = None

    def start(self, folder: Path, origin: Origin) -> None:
        """Starts all processes, which find each other by themselves. Blocks until every actor has answered.

        Raises:
            ConfigError: A node has other versions than the driver.
            StartFailed: An actor did not start in time, or died.
        """
        self._seats = self._take_seats()
        num_processes = self.plan.placement.num_processes
        self.rendezvous = self._actor(Rendezvous, self._seats[0], 0).remote(num_processes, self.attempt)
        # All at once: each takes seconds to import torch.
        self.actors = {rank: self._process(rank) for rank in range(num_processes)}
        self._check_versions()
        host, port = self._answers([self.rendezvous.address.remote()])[0]
        self._address = {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
        self._folder, self._origin = folder, origin
        self._running: dict[Any, int] = {}
        for rank in range(num_processes):
            self._run(rank, 0)

    def watch(self, screen: Screen, request: StopRequest) -> Ending:
        """Shows the run until it has ended; blocks. A process that dies or stands still alone is started again where
        `faults.policy=isolate` allows it. Once the request is made, the run saves itself and ends."""
        labels = [seat.label for seat in self.plan.placement.seats()]
        pulses = Pulses(len(labels), self.plan.config.faults.heartbeat_timeout_s)
        codes: dict[int, int] = {}
        printed, cause, is_told = 0, None, False
        while self._running:
            if request.is_made and not is_told:
                self.rendezvous.stop.remote()
                is_told = True
            done, _ = ray.wait(list(self._running), timeout=LOOK_S)
            with contextlib.suppress(RayActorError, GetTimeoutError):
                rows, lines, cause = ray.get(self.rendezvous.look.remote(printed), timeout=GRACE_S)
                printed += len(lines)
                for line in lines:
                    screen.print(line)
                screen.show(rows, labels, self.plan.blueprint.total_steps)
                self._kill_silent(pulses, rows)
            for reference in done:
                rank = self._running.pop(reference)
                try:
                    codes[rank] = ray.get(reference)
                except (RayActorError, RayTaskError) as error:
                    if cause is None and self._comes_back(rank) and self._replace(rank):
                        continue
                    screen.release()
                    return self._ending(rank, error)
        screen.release()
        return Ending(max(codes.values()))

    def end(self) -> None:
        """Ends all of its actors at once; idempotent."""
        for actor in filter(None, (*self.actors.values(), self.rendezvous)):
            ray.kill(actor)

    def _check_versions(self) -> None:
        here = versions()
        for rank, there in enumerate(self._answers([self.actors[rank].versions.remote() for rank in sorted(self.actors)])):
            if there != here:
                found = f"{self._seat_name(rank)} would run with {_listed(there)}, but here is {_listed(here)}"
                raise ConfigError([f"{found}: use one version"])

    def _answers(self, references: list[Any]) -> list[Any]:
        timeout_s = self.plan.config.ray.start_timeout_s
        try:
            answers: list[Any] = ray.get(references, timeout=timeout_s)
        except GetTimeoutError:
            raise StartFailed(f"waited {timeout_s:g} s (ray.start_timeout_s) for the actors to start") from None
        except RayError as error:
            raise StartFailed(f"an actor did not start: {_reason(error)}") from None
        return answers

    def _comes_back(self, rank: int) -> bool:
        return self.plan.config.faults.comes_back(self.incarnations[rank])

    def _kill_silent(self, pulses: Pulses, rows: Rows) -> None:
        """Ends processes that stand still and may be started again; the others end the run by themselves."""
        for row in pulses.silent(rows):
            rank = row.seat.rank
            # The row of one that is being replaced is its predecessor's.
            if self._comes_back(rank) and row.incarnation == self.incarnations[rank]:
                ray.kill(self.actors[rank])

    def _process(self, rank: int) -> Any:
        bundle = self._seats[rank]
        return self._actor(StageProcess, bundle, self.group.bundle_specs[bundle]).remote()

    def _replace(self, rank: int) -> bool:
        """Starts a lost process again, on another node if its own is gone; returns whether there was room for it in time."""
        try:
            wait_until_all_answer(self.group, self.plan.config.ray.start_timeout_s, [self._seats[rank]])
        except TimeoutError:
            return False
        self.actors[rank] = self._process(rank)
        self._run(rank, self.incarnations[rank] + 1)
        return True

    def _run(self, rank: int, incarnation: int) -> None:
        self.incarnations[rank] = incarnation
        ranks = {
            "RANK": str(rank),
            "WORLD_SIZE": str(self.plan.placement.num_processes),
            "LOCAL_RANK": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(self.attempt),
        }
        config, variables = dump_config(self.plan.config), self.variables | self._address | ranks
        reference = self.actors[rank].run.remote(variables, config, str(self._folder), self._origin.note(), incarnation)
        self._running[reference] = rank

    def _actor(self, kind: type, bundle: int, resources: Any) -> Any:
        needs = resources or {}
        return ray.remote(kind).options(
            num_cpus=needs.get("CPU", 0),
            num_gpus=needs.get("GPU", 0),
            scheduling_strategy=place(self.group, bundle),
            runtime_env={"env_vars": self.variables},
        )

    def _take_seats(self) -> list[int]:
        nodes = placement_group_table(self.group)["bundles_to_node_id"]
        return seating([nodes[bundle] for bundle in range(len(nodes))], self.plan.placement.replicas[0])

    def _ending(self, rank: int, error: Exception) -> Ending:
        """The end of a run whose first process to be lost was this one."""
        if cause := self._find_cause():
            code, _ = ENDS.get(cause.kind, (FAILED, None))
            return Ending(code, cause.message)
        return Ending(FAILED, f"{self._seat_name(rank)}: {_reason(error)}")

    def _find_cause(self) -> Cause | None:
        """The cause on the board, which the first process to end may not have posted itself."""
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RayActorError, GetTimeoutError):
                cause: Cause | None = ray.get(self.rendezvous.look.remote(0), timeout=1)[2]
                if cause:
                    return cause
            time.sleep(0.1)
        return None

    def _seat_name(self, rank: int) -> str:
        return self.plan.placement.seat_of(rank).name


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
