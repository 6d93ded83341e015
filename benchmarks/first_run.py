"""What `make run` prints at its end, for README.md: the last evaluation, the table of stages, and the result.

    python -m benchmarks.first_run --out benchmarks/results/first_run [--smoke]

One run, as a reader's first one: 4 processes under torchrun, handwritten digits, everything else a default.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from greedypipe.workers.telemetry.machine import hardware, versions

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 4
TIMEOUT_S = 600.0


def last_lines(overrides: Sequence[str]) -> list[str]:
    """Runs in an empty folder; returns what was printed from the last evaluation on.

    Raises:
        subprocess.CalledProcessError: The run failed; its errors are on this process's stderr.
    """
    command = [sys.executable, str(ROOT / "launch" / "train.py"), "--stages", str(PROCESSES)]
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [*command, *overrides],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=True,
        )
    lines = [line.rstrip().replace(folder, "...") for line in ended.stdout.splitlines()]
    last = max(number for number, line in enumerate(lines) if line.startswith("epoch") and "accuracy" in line)
    return lines[last:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--smoke", action="store_true", help="one epoch")
    arguments = parser.parse_args()
    lines = last_lines(["training.epochs=1"] if arguments.smoke else [])
    print("\n".join(lines))
    answer = {
        "command": "python -m benchmarks.first_run " + " ".join(sys.argv[1:]),
        "hardware": hardware(),
        "versions": versions(),
        "printed": lines,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
