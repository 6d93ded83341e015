"""Trains a network block by block, one process per stage: the program of each process that torchrun starts.

    torchrun --nproc_per_node=4 -m greedypipe.launch.run [--config x.yaml] [--resume auto|PATH] [section.key=value ...]

On a single host, `greedypipe train` does the same without torchrun.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        import bootstrap  # noqa: F401
    from greedypipe.workers.lifeline import end_with_agent

    end_with_agent()

import torch
from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin, find_again, find_origin, say
from greedypipe.launch.config.command_line import RANKS_OF_HOST, RunCommandLine, command, refuse
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import DEFAULT_CONFIG, dump_config, load_config
from greedypipe.launch.planning.host_limits import check_host
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.process import launcher
from greedypipe.launch.process.environment import Environment
from greedypipe.launch.recovery.life import Life


@command
def main() -> None:
    arguments = _parse()
    try:
        environment = Environment.read()
        if arguments.stages not in (None, environment.world_size):
            refuse(f"--stages: got {arguments.stages}, but the launcher has started {environment.world_size} (WORLD_SIZE)")
        if remark := launcher.remark():
            print(f"greedypipe: {remark}", file=sys.stderr, flush=True)
        # A keeper forks.
        launcher.count_gpus_without_driver()
        config = load_config(arguments.config or DEFAULT_CONFIG, arguments.overrides)
        if arguments.print_config:
            _print_on_rank_0(environment, dump_config(config).rstrip())
            return
        # There must be no threads before a keeper forks.
        torch.set_num_threads(1)
        plan = make_plan(config, environment.world_size)
        if config.faults.policy == "isolate":
            environment.check_store_outlives_processes()
    except ConfigError as error:
        refuse(error)
    try:
        check_host(plan, [plan.placement.seat_of(rank) for rank in environment.ranks_here])
    except ConfigError as error:
        refuse(error, RANKS_OF_HOST)
    # Imported late: what only prints the configuration or its keys does without.
    from greedypipe.launch.process.rank import run_rank

    sys.exit(run_rank(plan, environment, functools.partial(_work, environment, plan, arguments.resume)))


def _work(environment: Environment, plan: Plan, resume: str | None, life: Life) -> int:
    """Runs one process of the run; under a keeper, in its child, also after a restart."""
    from greedypipe.launch.process.run_process import run_stage
    from greedypipe.launch.recovery.member import Member
    from greedypipe.launch.recovery.stopping import RankSignals
    from greedypipe.launch.reporting.screen import make_screen

    with RankSignals(speaks=environment.rank == 0) as signals:
        stores = environment.connect(2, plan.config.faults.timeout_s)
        folder = find = None
        if environment.rank == 0:
            folder, find = _begin(environment, resume, plan, stores[1], life.incarnation)
        rank, local_rank = environment.rank, environment.local_rank
        member = Member.join(plan, rank, local_rank, stores, folder=folder, find_origin=find, life=life)
        return run_stage(member, make_screen(plan.config.logging.console_interval_s), signals)


def _begin(
    environment: Environment, resume: str | None, plan: Plan, store: Store, incarnation: int
) -> tuple[Path, Callable[[], Origin]]:
    """For rank 0: the run's folder, and a function that finds where the run begins. A first start finds that at once, since
    `resume` may have to be refused."""
    earlier = environment.noted_folder(store) if environment.attempt or incarnation else None

    if incarnation and earlier:
        return earlier, functools.partial(find_again, plan, earlier)
    try:
        origin = find_origin(resume, plan, earlier, say)
    except ConfigError as error:
        refuse(error)
    environment.note_folder(store, origin.folder)
    return origin.folder, lambda: origin


def _parse() -> argparse.Namespace:
    parser = RunCommandLine(__doc__, lists_keys=True)
    parser.add_argument("--stages", type=int, help="processes (default, and allowed: those that were started)")
    parser.add_resume()
    parser.add_print_config()
    return parser.parse_intermixed_args()


def _print_on_rank_0(environment: Environment, text: str) -> None:
    if environment.rank == 0:
        print(text, flush=True)


if __name__ == "__main__":
    main()
