"""The command line that is common to the commands that take a configuration.

Imports nothing heavy, so that a command can read its arguments before it imports torch.
"""

import argparse
import sys
from typing import NoReturn

from greedypipe.launch.recovery.exit_codes import WRONG_CONFIGURATION
from greedypipe.workers.telemetry.phrases import shown


class CommandLine(argparse.ArgumentParser):
    """A parser for --config and overrides, under the name by which the command was called.

    Args:
        lists_keys: Whether --help lists every key of a configuration.
    """

    def __init__(self, description: str | None, *, lists_keys: bool) -> None:
        super().__init__(prog=sys.argv[0], description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._lists_keys = lists_keys
        self.add_argument("--config", help="YAML file (default: configs/digits.yaml)")
        self.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides the file")

    def format_help(self) -> str:
        if self._lists_keys:
            # Imported only here: the configuration's sections import torch.
            from greedypipe.launch.config.help import describe_keys

            self.epilog = f"keys (section.key=default):\n{describe_keys()}"
        return super().format_help()

    def add_resume(self) -> None:
        """Adds --resume."""
        self.add_argument(
            "--resume",
            metavar="auto|PATH",
            help="auto: continue in the newest folder of this run, at its newest complete checkpoint; PATH: continue in a "
            "new folder, from that run or checkpoint",
        )

    def add_print_config(self) -> None:
        """Adds --print-config."""
        self.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")


def refuse(why: object) -> NoReturn:
    """Ends the process because of wrong input; prints every line of `why` with greedypipe's prefix."""
    for line in str(why).splitlines():
        print(f"greedypipe: {shown(line)}", file=sys.stderr, flush=True)
    sys.exit(WRONG_CONFIGURATION)
