"""The process that starts a run on a Ray cluster: connects, reserves, starts, watches, starts again."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from greedypipe.launch.checkpoints.resume import Origin, find_again, find_origin
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.on_ray.gang import Ending, Gang, StartFailed
from greedypipe.launch.on_ray.reservation import reserved, wait_until_all_answer
from greedypipe.launch.on_ray.resources import bundles, cpus_of_own_cluster, shortage
from greedypipe.launch.on_ray.stops import Stops, ToldToStop
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.exit_codes import FAILED, REQUEUE
from greedypipe.launch.recovery.stopping import before_training
from greedypipe.launch.reporting.screen import Screen

CONNECT_S = 5.0
CHECKOUT = Path(__file__).resolve().parents[1] / "checkout"
"""Makes a checkout importable; an installed package has no such folder and needs none."""


def run_on_cluster(plan: Plan, address: str | None, num_cpus: int | None, resume: str | None, screen: Screen) -> int:
    """Runs a plan on a cluster to its end; blocks. Leaves no actor and nothing reserved behind, whatever happens.

    Args:
        address: Address of the cluster; None: the job's own, or else a cluster on this machine alone with `num_cpus` CPUs.
        num_cpus: CPUs of a cluster on this machine alone; None: see `cpus_of_own_cluster`.
        resume: As in `launch.checkpoints.resume.find_origin`.

    Returns:
        The exit code.

    Raises:
        ConfigError: There is no cluster, it has too few resources or other versions, or the folder is wrong.
    """
    _check_folder(plan)
    stops = Stops()
    try:
        with stops.heard():
            return _run_connected(plan, address, num_cpus, resume, screen, stops)
    except TimeoutError as error:
        raise ConfigError([str(error)]) from None
    except ToldToStop as stop:
        print(f"greedypipe: {stop}", file=sys.stderr, flush=True)
        return stop.code


def _run_connected(
    plan: Plan, address: str | None, num_cpus: int | None, resume: str | None, screen: Screen, stops: Stops
) -> int:
    own_cpus = num_cpus or cpus_of_own_cluster(bundles(plan, 0), len(os.sched_getaffinity(0)))
    # Heard again: ray.init has put a handler of its own in the place of one.
    with _cluster(address, own_cpus), stops.heard():
        config = plan.config.ray
        needed = bundles(plan, ray.cluster_resources().get("GPU", 0))
        if lacking := shortage(needed, ray.nodes(), config.strategy):
            raise ConfigError([lacking])
        with reserved(needed, config.strategy, config.start_timeout_s) as group:
            return _run_until_done(plan, group, find_origin(resume, plan, None, screen.print), screen, stops)


def _run_until_done(plan: Plan, group: Any, origin: Origin, screen: Screen, stops: Stops) -> int:
    """Runs the plan, and again after failures as often as ray.max_failures allows, unless it was told to stop."""
    config = plan.config.ray
    for attempt in range(config.max_failures + 1):
        ending = _run_once(Gang(plan, group, attempt, _variables()), origin, screen, stops)
        if ending.cause:
            print(f"greedypipe: {ending.cause}", file=sys.stderr, flush=True)
        if ending.code != FAILED or stops.request.is_made:
            return ending.code
        if attempt < config.max_failures:
            wait_until_all_answer(group, config.start_timeout_s)
            screen.print(f"starts again, {attempt + 1} of {config.max_failures} (ray.max_failures)")
            origin = find_again(plan, origin.folder, screen.print)
    return FAILED


def _run_once(gang: Gang, origin: Origin, screen: Screen, stops: Stops) -> Ending:
    try:
        gang.start(origin.folder, origin)
        with stops.watched():
            return gang.watch(screen, stops.request)
    except StartFailed as failure:
        return Ending(FAILED, str(failure))
    finally:
        screen.release()
        gang.end()


def _variables() -> dict[str, str]:
    """Environment variables of all processes. Inside a job they import the job's own copy of the code."""
    needs_path = CHECKOUT.is_dir() and not _is_job()
    return ({"PYTHONPATH": str(CHECKOUT)} if needs_path else {}) | {"OMP_NUM_THREADS": "1"}


def _is_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _check_folder(plan: Plan) -> None:
    if _is_job() and not Path(plan.config.run.folder).is_absolute():
        raise ConfigError(
            [
                f"run.folder: got {plan.config.run.folder}, allowed in a job: an absolute folder that all nodes share; a "
                "relative one would be inside the job's copy of the code"
            ]
        )


@contextlib.contextmanager
def _cluster(address: str | None, num_cpus: int) -> Iterator[None]:
    """Connects to a cluster, or starts one on this machine alone.

    Raises:
        ConfigError: There is no cluster at the address, or it runs another version.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    _check_address(address)
    try:
        if address or _is_job():
            ray.init(address or "auto", **quiet)
        else:
            ray.init(num_cpus=num_cpus, include_dashboard=False, **quiet)
    except SystemExit:
        # Of Ray's handler of SIGTERM, which ends the process whatever it is doing.
        raise ToldToStop(before_training("SIGTERM"), REQUEUE) from None
    except Exception as error:
        raise ConfigError([f"--address: got {address}: {' '.join(str(error).split())[:300]}"]) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raises ConfigError where nobody listens at the address: Ray would end the process without a word of ours."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except OSError as error:
            raise ConfigError([f"--address: got {address}, where nobody answers: {error.strerror or error}"]) from None
