"""Runs steps one after another, each in a process and a process group of its own, with a deadline; none stops the others."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.gpu.facts import FACTS_FILE, append

LOG_FILE = "gpu.log"
KILL_S = 10.0
"""How much later than its own deadline a step is killed: until then it may print where it stands."""
LEAST_S = 5.0
"""A step is not begun with less time than this."""

Command = Callable[[str, float], Sequence[str]]
"""The command line of a step, which has so many seconds."""


def run_steps(
    steps: Mapping[str, float], command: Command, out: Path, budget_s: float, *, kill_s: float = KILL_S
) -> list[dict[str, Any]]:
    """Runs steps in order, until none is left or no time; what each of them prints goes to the log.

    Args:
        steps: Seconds that each may take, by name.
        budget_s: Seconds for all of them.
        kill_s: See `KILL_S`.

    Returns:
        How each one ended, which is in the file of facts too.
    """
    deadline, ended = time.monotonic() + budget_s, []
    for name, seconds in steps.items():
        left_s = deadline - time.monotonic() - kill_s
        if left_s < min(LEAST_S, seconds):
            end: dict[str, Any] = {"step": name, "name": "end", "ok": False, "left_out": "no time was left"}
        else:
            limit_s = min(seconds, left_s)
            end = _run(name, command(name, limit_s), limit_s + kill_s, out / LOG_FILE)
        append(out / FACTS_FILE, end)
        print(json.dumps(end), flush=True)
        ended.append(end)
    return ended


def _run(name: str, command: Sequence[str], limit_s: float, log_file: Path) -> dict[str, Any]:
    started = time.monotonic()
    with log_file.open("ab") as log:
        log.write(f"\n===== {name} (killed after {limit_s:.0f} s)\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        _kill_group(process)
    seconds = round(time.monotonic() - started, 2)
    return {"step": name, "name": "end", "ok": code == 0, "exit": code, "timed_out": code is None, "seconds": seconds}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and everything that it may have left behind: the group is its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
