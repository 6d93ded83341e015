"""One step of tests.gpu.script, in the process that is started for it: python -m tests.gpu.step NAME OUT SCRATCH LIMIT_S"""

import argparse
import faulthandler
import importlib
import sys
from pathlib import Path

from tests.gpu.facts import Facts, Setting


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("limit_s", type=float)
    parser.add_argument("--pretend", action="store_true")
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(arguments.limit_s, exit=True)
    found = Facts(arguments.out, arguments.name)
    setting = Setting(arguments.out, arguments.scratch, arguments.limit_s, arguments.pretend)
    found.attempt("step", lambda: importlib.import_module(f"tests.gpu.steps.{arguments.name}").run(found, setting))
    sys.exit(found.failed)


if __name__ == "__main__":
    main()
