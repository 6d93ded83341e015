"""All processes of one run on a cluster: started together, watched, ended together."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.config.loader import ConfigError, dump_config
from greedypipe.launch.on_ray.actors import Rendezvous, StageProcess
from greedypipe.launch.on_ray.resources import Bundle, seating
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.exit_codes import FAILED
from greedypipe.launch.reporting.screen import Screen
from greedypipe.workers.telemetry.machine import versions

LOOK_S = 0.5
GRACE_S = 5.0
"""How long to look for the cause behind the first process that ended: an echo may come before it."""


@contextlib.contextmanager
def reserved(wanted: list[Bundle], strategy: str, timeout_s: float) -> Iterator[PlacementGroup]:
    """Resources of a cluster, for the body.

    Raises:
        TimeoutError: Others did not give them free in time.
    """
    group = placement_group(wanted, strategy=strategy)
    try:
        _wait_for(group, lambda left_s: ray.get(group.ready(), timeout=left_s), timeout_s)
        yield group
    finally:
        remove_placement_group(group)


def wait_until_all_answer(group: PlacementGroup, timeout_s: float, bundles: Iterable[int] | None = None) -> None:
    """Blocks until a process can be started in every bundle, or in those given: Ray takes some seconds to notice that a node
    is gone, and to give what was there another one. Raises TimeoutError."""

    def probe(left_s: float) -> None:
        ray.get(group.ready(), timeout=left_s)
        here = ray.remote(num_cpus=0, max_retries=0)(_here)
        places = [_place(group, bundle) for bundle in bundles or range(len(group.bundle_specs))]
        ray.get([here.options(scheduling_strategy=place).remote() for place in places], timeout=left_s)

    _wait_for(group, probe, timeout_s)


def _here() -> bool:
    return True


def _wait_for(group: PlacementGroup, look: Callable[[float], object], timeout_s: float) -> None:
    """Tries `look`, which is given the seconds that are left, until Ray raises no error."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            look(max(0.0, deadline - time.monotonic()))
            return
        except RayError:
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
    busy = {name: f"{count:g}" for name, count in ray.available_resources().items() if name in ("CPU", "GPU")}
    wanted = f"{len(group.bundle_specs)} bundles; free now: {busy or 'nothing'}"
    raise TimeoutError(f"waited {timeout_s:g} s (ray.start_timeout_s) for {wanted}")


def _place(group: PlacementGroup, bundle: int) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)


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
        """Starts all processes; they find each other by themselves.

        Raises:
            ConfigError: A node has other versions than the driver.
        """
        self._seats = self._take_seats()
        num_processes = self.plan.placement.num_processes
        self.rendezvous = self._actor(Rendezvous, self._seats[0], 0).remote(num_processes, self.attempt)
        # All at once: each takes seconds to import torch.
        self.actors = {rank: self._process(rank) for rank in range(num_processes)}
        self._check_versions()
        host, port = ray.get(self.rendezvous.address.remote())
        self._address = {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
        self._folder, self._origin = folder, origin
        self._running: dict[Any, int] = {}
        for rank in range(num_processes):
            self._run(rank, 0)

    def _check_versions(self) -> None:
        here = versions()
        for rank, there in enumerate(ray.get([self.actors[rank].versions.remote() for rank in sorted(self.actors)])):
            if there != here:
                seat = self.plan.placement.seat_of(rank)
                raise ConfigError([f"{seat.name} would run with {_said(there)}, but here is {_said(here)}: use one version"])

    def watch(self, screen: Screen) -> "Ending":
        """Shows the run until it has ended; blocks. A process that dies alone is started again where
        `faults.policy=isolate` says so."""
        labels = [seat.label for seat in self.plan.placement.seats()]
        comes_back = self.plan.config.faults.comes_back
        codes: dict[int, int] = {}
        said, cause = 0, None
        while self._running:
            done, _ = ray.wait(list(self._running), timeout=LOOK_S)
            with contextlib.suppress(RayActorError):
                rows, lines, cause = ray.get(self.rendezvous.look.remote(said), timeout=GRACE_S)
                said += len(lines)
                for line in lines:
                    screen.print(line)
                screen.show(rows, labels, self.plan.blueprint.total_steps)
            for reference in done:
                rank = self._running.pop(reference)
                try:
                    codes[rank] = ray.get(reference)
                except (RayActorError, RayTaskError) as error:
                    if cause is None and comes_back(self.incarnations[rank]) and self._replace(rank):
                        continue
                    screen.release()
                    return Ending(FAILED, self._find_cause() or self._name(rank, error))
        screen.release()
        return Ending(max(codes.values()), "")

    def stop(self) -> None:
        """Tells the run to save itself and end."""
        if self.rendezvous:
            self.rendezvous.stop.remote()

    def end(self) -> None:
        """Ends all of its actors at once; idempotent."""
        for actor in filter(None, (*self.actors.values(), self.rendezvous)):
            ray.kill(actor)

    def _process(self, rank: int) -> Any:
        bundle = self._seats[rank]
        return self._actor(StageProcess, bundle, self.group.bundle_specs[bundle]).remote()

    def _replace(self, rank: int) -> bool:
        """Starts a process again that is gone, maybe with its node; returns whether there was room for it in time."""
        try:
            wait_until_all_answer(self.group, self.plan.config.ray.start_timeout_s, [self._seats[rank]])
        except TimeoutError:
            return False
        self.actors[rank] = self._process(rank)
        self._run(rank, self.incarnations[rank] + 1)
        return True

    def _run(self, rank: int, incarnation: int) -> None:
        self.incarnations[rank] = incarnation
        variables = (
            self.variables
            | self._address
            | {
                "RANK": str(rank),
                "WORLD_SIZE": str(self.plan.placement.num_processes),
                "LOCAL_RANK": "0",
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": str(self.attempt),
            }
        )
        reference = self.actors[rank].run.remote(
            variables, dump_config(self.plan.config), str(self._folder), self._origin.note(), incarnation
        )
        self._running[reference] = rank

    def _actor(self, kind: type, bundle: int, resources: Any) -> Any:
        needs = resources or {}
        return ray.remote(kind).options(
            num_cpus=needs.get("CPU", 0),
            num_gpus=needs.get("GPU", 0),
            scheduling_strategy=_place(self.group, bundle),
            runtime_env={"env_vars": self.variables},
        )

    def _take_seats(self) -> list[int]:
        nodes = placement_group_table(self.group)["bundles_to_node_id"]
        return seating([nodes[bundle] for bundle in range(len(nodes))], self.plan.placement.replicas[0])

    def _find_cause(self) -> str:
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RayActorError, GetTimeoutError):
                _, _, cause = ray.get(self.rendezvous.look.remote(0), timeout=1)
                if cause:
                    return cause.message
            time.sleep(0.1)
        return ""

    def _name(self, rank: int, error: Exception) -> str:
        seat = list(self.plan.placement.seats())[rank]
        return f"{seat.name}: {str(error).strip().splitlines()[0]}"


def _said(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


@dataclass(frozen=True)
class Ending:
    """How an attempt has ended: the worst exit code, and the cause where it is no good one."""

    code: int
    cause: str
