"""Trains a network block by block on this host, one process per stage.

    greedypipe train [--stages 4] [--config x.yaml] [--resume auto|PATH] [section.key=value ...]

For several hosts use torchrun: `torchrun ... -m greedypipe.launch.run`, with the same options. Ctrl-C and SIGTERM make the
run save and end (exit code 75); the same again, some seconds later, ends it at once.
"""

import argparse
import sys

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from greedypipe.launch.config.command_line import RunCommandLine, command, refuse
from greedypipe.launch.on_host import fork_server
from greedypipe.launch.process import launcher
from greedypipe.launch.recovery.exit_codes import INTERRUPTED


@command
def main() -> None:
    arguments = _parse()
    if problem := launcher.copies():
        refuse(problem)
    try:
        sys.exit(_print_config(arguments) if arguments.print_config else _train(arguments))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _train(arguments: argparse.Namespace) -> int:
    # The server imports what ranks need while this process imports what it needs to check the configuration.
    fork_server.start(fork_server.RANKS_NEED)
    from greedypipe.launch.config.errors import ConfigError
    from greedypipe.launch.on_host.host_run import run_on_host, settle

    try:
        plan, origin = settle(arguments.config, arguments.overrides, arguments.stages, arguments.resume, print)
    except ConfigError as error:
        fork_server.stop()
        refuse(error)
    return run_on_host(plan, origin)


def _print_config(arguments: argparse.Namespace) -> int:
    from greedypipe.launch.config.errors import ConfigError
    from greedypipe.launch.config.loader import DEFAULT_CONFIG, dump_config, load_config

    try:
        print(dump_config(load_config(arguments.config or DEFAULT_CONFIG, arguments.overrides)).rstrip())
    except ConfigError as error:
        refuse(error)
    return 0


def _parse() -> argparse.Namespace:
    parser = RunCommandLine(__doc__, lists_keys=True)
    parser.add_argument("--stages", type=int, help="processes (default: one per block, with its replicas)")
    parser.add_resume()
    parser.add_print_config()
    arguments = parser.parse_intermixed_args()
    if arguments.stages is not None and arguments.stages < 1:
        parser.error(f"--stages: got {arguments.stages}, allowed: 1 or more")
    return arguments


if __name__ == "__main__":
    main()
