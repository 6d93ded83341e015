"""Trains a network block by block on a Ray cluster: one actor per process; everything else is as under torchrun.

    greedypipe ray [--config x.yaml] [--address auto] [--stages 4] [section.key=value ...]
    ray job submit --working-dir . -- python launch/ray_run.py --config ... run.folder=/shared/runs

Ray reserves the resources, starts and watches the processes, and restarts them; activations travel over the run's own
links, not through Ray. The folders run.folder and data.root must be the same on all nodes. Ctrl-C, SIGTERM (which
`ray job stop` sends) and their like make the run save first; a second one ends it at once.
"""

import argparse
import importlib.util
import sys

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from greedypipe.launch.config.command_line import RunCommandLine, command, refuse
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import DEFAULT_CONFIG, load_config
from greedypipe.launch.planning.run_plan import make_plan, natural_processes
from greedypipe.launch.process.launcher import count_gpus_without_driver
from greedypipe.launch.recovery.exit_codes import INTERRUPTED
from greedypipe.launch.reporting.screen import make_screen

INSTALL = "pip install 'greedypipe[ray]'"


@command
def main() -> None:
    arguments = _parse()
    if importlib.util.find_spec("ray") is None:
        refuse(f"ray is not installed: {INSTALL}")
    from greedypipe.launch.on_ray.driver import run_on_cluster

    count_gpus_without_driver()
    try:
        config = load_config(arguments.config or DEFAULT_CONFIG, arguments.overrides)
        plan = make_plan(config, arguments.stages or natural_processes(config))
        screen = make_screen(config.logging.console_interval_s)
        sys.exit(run_on_cluster(plan, arguments.address, arguments.num_cpus, arguments.resume, screen))
    except ConfigError as error:
        refuse(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _parse() -> argparse.Namespace:
    parser = RunCommandLine(__doc__, lists_keys=True)
    parser.add_argument("--address", help="cluster: auto, or HOST:6379 of its head (default: a new one on this machine)")
    parser.add_argument(
        "--num-cpus",
        type=int,
        help="CPUs of a new cluster on this machine (default: its cores, or as many as the run needs)",
    )
    parser.add_argument("--stages", type=int, help="processes (default: one per block)")
    parser.add_resume()
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
