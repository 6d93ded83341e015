"""All that needs a GPU, in the order in which a failure says most: `make gpu`, or

    python -m tests.gpu.script OUT [--budget-s 470] [--only facts,events] [--pretend]

Every fact is one line of OUT/gpu.jsonl, written as soon as it is known; what the steps print goes to OUT/gpu.log. What the
pages say of GPUs is made from OUT/gpu-DATE.json, written at the end, which belongs into benchmarks/results/gpu.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.gpu import facts, status
from tests.gpu.runner import LOG_FILE, run_steps

STEPS: Mapping[str, float] = {
    "facts": 40,
    "events": 60,
    "graphs": 60,
    "nccl_alone": 40,
    "mapped": 60,
    "nccl_pair": 90,
    "nccl_lost": 60,
    "links": 110,
    "sync": 40,
    "equivalence": 120,
    "resume": 60,
    "kill": 40,
    "accuracy": 40,
    "rows": 90,
}
"""Seconds that each may take. In this order: what a later one needs, an earlier one has tried alone."""
BUDGET_S = 470.0
LONGER_TO_PRETEND = 4
"""A CPU computes longer, and shares its time with whatever else is tested."""
FAILURE_LETTERS, FACT_LETTERS = 700, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help=f"seconds for everything ({BUDGET_S:.0f})")
    parser.add_argument("--only", default="", help=f"some of {','.join(STEPS)}; facts are always gathered")
    parser.add_argument("--pretend", action="store_true", help="without a GPU: try the script itself, on the CPU")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    if unknown := sorted(set(only) - STEPS.keys()):
        parser.error(f"--only: got {', '.join(unknown)}, allowed: {', '.join(STEPS)}")
    longer = LONGER_TO_PRETEND if arguments.pretend else 1
    steps = {name: longer * seconds for name, seconds in STEPS.items() if not only or name in {"facts", *only}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in (facts.FACTS_FILE, LOG_FILE):
        (arguments.out / name).unlink(missing_ok=True)
    flags = ["--pretend"] if arguments.pretend else []

    with tempfile.TemporaryDirectory() as scratch:

        def command(name: str, limit_s: float) -> Sequence[str]:
            return [sys.executable, "-um", "tests.gpu.step", name, str(arguments.out), scratch, f"{limit_s:.0f}", *flags]

        ended = run_steps(steps, command, arguments.out, arguments.budget_s)
    lines = facts.read(arguments.out)
    if not arguments.pretend:
        status.write(arguments.out, lines)
    _tell(lines)
    sys.exit(not all(end["ok"] for end in ended))


def _tell(lines: Sequence[Mapping[str, Any]]) -> None:
    """Every failure, then the facts: where only the end of the output is kept, it has the failures all the same."""
    failures = [line for line in lines if not line["ok"]]
    for line in failures:
        print("FAILED", json.dumps(line)[:FAILURE_LETTERS])
    for line in lines:
        if line["ok"] and line["name"] != "end":
            print("ok", json.dumps(line)[:FACT_LETTERS])
    for line in failures:
        print(f"FAILED {line['step']}: {line['name']}")
    print(f"{len(failures)} failures, {len(lines)} lines", flush=True)


if __name__ == "__main__":
    main()
