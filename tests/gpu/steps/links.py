"""Step 7: the conformance suite of the links over the memory, streams and events of a GPU."""

import re
import subprocess
import sys
from functools import partial
from typing import Any

from tests.gpu.facts import Facts, Setting

SUITE = ("tests/conformance", "-m", "gpu")
MARGIN_S = 5.0


def run(found: Facts, setting: Setting) -> None:
    found.attempt("conformance", partial(_suite, setting))


def _suite(setting: Setting) -> dict[str, Any]:
    """The tests that are marked so; to pretend, they are only collected."""
    collect = ["--collect-only"] if setting.pretend else []
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *SUITE, *collect]
    done = subprocess.run(command, capture_output=True, text=True, timeout=setting.limit_s - MARGIN_S)
    print(done.stdout[-20_000:], done.stderr[-4_000:], flush=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    assert done.returncode == 0, f"exit {done.returncode}: {last}"
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|skipped|failed|tests? collected)", last)}
    assert setting.pretend or (counts.get("passed", 0) and not counts.get("skipped")), last
    return {"counts": counts}
