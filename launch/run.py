"""Trains a network block by block, one process per stage.

    torchrun --nproc_per_node=4 launch/run.py [--config configs/x.yaml] [--resume auto|PATH] [section.key=value ...]
"""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    # torchrun puts launch/ on the path, not the folder above it.
    sys.path.insert(0, ROOT)

from torch.distributed import Store  # noqa: E402

from launch.assemble import Process, run_stage  # noqa: E402
from launch.config import ConfigError, describe_keys, dump_config, load_config  # noqa: E402
from launch.monitor import make_console  # noqa: E402
from launch.preflight import Plan, make_plan  # noqa: E402
from launch.rendezvous import Environment  # noqa: E402
from launch.resume import Origin, find_origin  # noqa: E402

DEFAULT_CONFIG = os.path.relpath(Path(ROOT, "configs", "digits.yaml"))
WRONG_CONFIGURATION = 2


def main() -> None:
    environment = Environment.read()
    arguments = _parse()
    try:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            _say(environment, dump_config(config).rstrip())
            return
        plan = make_plan(config, environment.world_size)
    except ConfigError as error:
        _refuse(environment, error)
    with contextlib.suppress(KeyboardInterrupt):
        store, board_store = environment.connect(2, config.faults.timeout_s)
        origin = _begin(environment, arguments.resume, plan, board_store) if environment.rank == 0 else None
        process = Process(environment.rank, environment.local_rank, origin, store, board_store)
        sys.exit(run_stage(plan, process, make_console()))
    sys.exit(130)


def _begin(environment: Environment, resume: str | None, plan: Plan, store: Store) -> Origin:
    """Where the run begins, which rank 0 decides."""
    try:
        origin = find_origin(resume, plan, environment.earlier_folder(store), lambda text: print(text, flush=True))
    except ConfigError as error:
        _refuse(environment, error)
    environment.note_folder(store, origin.folder)
    return origin


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch/run.py", description=__doc__, epilog=f"keys (section.key=default):\n{describe_keys()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="YAML file (default: configs/digits.yaml)")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--resume", metavar="auto|PATH",
                        help="go on: auto, in the newest folder of this run at its newest complete checkpoint; PATH, in a "
                        "new folder from a run's or a checkpoint's")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides the file")
    return parser.parse_args()


def _say(environment: Environment, text: str) -> None:
    if environment.rank == 0:
        print(text, flush=True)


def _refuse(environment: Environment, error: ConfigError) -> None:
    """Ends the process; one of all processes of the run says why."""
    if environment.rank == 0:
        for line in str(error).splitlines():
            print(f"greedypipe: {line}", file=sys.stderr, flush=True)
    else:
        # The launcher ends everybody as soon as one has left: rank 0 must have spoken by then.
        time.sleep(2)
    os._exit(WRONG_CONFIGURATION)


if __name__ == "__main__":
    main()
