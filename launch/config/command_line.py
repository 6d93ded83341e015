"""What all commands have in common on their command line.

Imports nothing heavy, so that a command can read its arguments before it imports torch.
"""

import argparse
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from greedypipe.launch.recovery.exit_codes import FAILED, INTERRUPTED, WRONG_CONFIGURATION
from greedypipe.workers.errors import tell_torchrun, with_traceback
from greedypipe.workers.output import escape_what_cannot_be_encoded, shown

RANK_0_SPEAKS_S = 2.0
"""How long the other ranks of a run leave it to rank 0 to say what is wrong; then they say it themselves."""


RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""Which of several processes this one is, by launcher."""
RANKS_OF_HOST = ("LOCAL_RANK",)
"""Likewise among those of this host."""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Makes a function the `main` of a command: whatever it raises becomes one line and an exit code.

    Output that the terminal cannot encode is escaped. The traceback of what nobody has foreseen goes to a file.
    """

    @functools.wraps(main)
    def guarded() -> None:
        escape_what_cannot_be_encoded()
        try:
            main()
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except Exception as error:
            end(with_traceback(error), FAILED)

    return guarded


def refuse(why: object, ranks: Sequence[str] = RANKS) -> NoReturn:
    """Ends the process because of wrong input; every line of `why` is printed as one.

    Args:
        ranks: Variables of which the first that is set tells the processes apart that find the same.
    """
    end(str(why), WRONG_CONFIGURATION, ranks)


def end(why: str, code: int, ranks: Sequence[str] = RANKS) -> NoReturn:
    """Ends the process; of several ranks that find the same, one says why."""
    if next((os.environ[name] for name in ranks if name in os.environ), "0") != "0":
        # The launcher ends everybody as soon as rank 0 has left, and torchrun reports in eight lines whoever does not obey.
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        time.sleep(RANK_0_SPEAKS_S)
    for line in why.splitlines():
        print(f"greedypipe: {shown(line)}", file=sys.stderr, flush=True)
    tell_torchrun(why)
    sys.exit(code)


def user_path(text: str) -> Path:
    """A path as its user has typed it: `~` is their home also where no shell has expanded it."""
    return Path(os.path.expanduser(text))


class CommandLine(argparse.ArgumentParser):
    """A parser under the name by which the command was called; its options may stand in any order."""

    def __init__(self, description: str | None) -> None:
        super().__init__(prog=sys.argv[0], description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Says in one line what is wrong with the arguments, and ends the process."""
        refuse(f"{message}; see {self.prog} --help")


class RunCommandLine(CommandLine):
    """A parser for --config and overrides.

    Args:
        lists_keys: Whether --help lists every key of a configuration.
    """

    def __init__(self, description: str | None, *, lists_keys: bool) -> None:
        super().__init__(description)
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
            type=os.path.expanduser,
            metavar="auto|PATH",
            help="auto: continue in the newest folder of this run, at its newest complete checkpoint; PATH: continue in a "
            "new folder, from that run or checkpoint",
        )

    def add_print_config(self) -> None:
        """Adds --print-config."""
        self.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
