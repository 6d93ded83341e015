"""The command `greedypipe`, also `python -m greedypipe`: runs the subcommand that its first argument names."""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import greedypipe

WRONG_COMMAND = 2


@dataclass(frozen=True)
class Command:
    """The module with a command's `main`, and a one-line summary."""

    module: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "train": Command("train", "trains a network on this host, one process per stage; under torchrun, one of its processes"),
    "plan": Command("plan", "measures layers, cuts the network, rehearses the cut, and predicts throughput"),
    "ray": Command("ray_run", "trains a network on a Ray cluster"),
    "export": Command("export", "writes a run's network as one plain state dict"),
    "evaluate": Command("evaluate", "measures every exit and the ensemble: accuracy, calibration, early exit"),
    "status": Command("status", "prints what every stage of a live run is doing, and whom it waits for"),
    "report": Command("report", "writes a run as one self-contained page"),
}


def main() -> None:
    """Reads `sys.argv`. The current folder goes onto the import path, for a user's own modules."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
    elif name == "--version":
        print(f"greedypipe {greedypipe.__version__}")
    elif name in COMMANDS:
        _become(name, arguments)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(COMMANDS)}"
        print(f"greedypipe: {name}: unknown command; {hint}", file=sys.stderr)
        sys.exit(WRONG_COMMAND)


def _become(name: str, arguments: list[str]) -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.argv = [f"greedypipe {name}", *arguments]
    is_rank = name == "train" and "RANK" in os.environ
    importlib.import_module(f"greedypipe.launch.{'run' if is_rank else COMMANDS[name].module}").main()


def _help() -> str:
    commands = "\n".join(f"  {name:10}{command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: greedypipe COMMAND ...\n\n"
        f"{(greedypipe.__doc__ or '').splitlines()[0]}\n\n"
        f"commands:\n{commands}\n\n"
        "options:\n"
        "  --version  print the version and stop\n\n"
        "greedypipe COMMAND --help describes a command."
    )


if __name__ == "__main__":
    main()
