"""What a step finds out: lines of gpu.jsonl, each on the disk before the next thing is tried."""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS_FILE = "gpu.jsonl"
MOST_LETTERS = 500


@dataclass(frozen=True)
class Setting:
    """What a step is run with.

    Attributes:
        out: The folder for everything that is left.
        scratch: A folder for whatever the step needs meanwhile.
        limit_s: Seconds after which the step is ended.
        pretend: Whether there is no GPU: the step tries its own plumbing on the CPU, and what it cannot do it leaves out.
    """

    out: Path
    scratch: Path
    limit_s: float
    pretend: bool


class Facts:
    """Appends the facts of one step to the file of the run; several processes of a step may do so.

    Attributes:
        failed: Whether one of them was a failure.
    """

    def __init__(self, out: Path, step: str) -> None:
        self._path, self.step, self.failed = out / FACTS_FILE, step, False

    def put(self, name: str, ok: bool = True, **facts: Any) -> None:
        """Adds one line; it is on the disk when this returns."""
        self.failed |= not ok
        append(self._path, {"step": self.step, "name": name, "ok": ok, **facts})

    def attempt(self, name: str, what: Callable[[], Mapping[str, Any] | None]) -> bool:
        """Adds what `what` returns, with the seconds that it took; an error becomes a failure, and is printed whole."""
        started = time.monotonic()
        try:
            found = what() or {}
        except (Exception, SystemExit) as error:
            text = traceback.format_exc()
            print(text, flush=True)
            reason = f"{type(error).__name__}: {error}"[:MOST_LETTERS]
            self.put(name, False, error=reason, at=text.strip().splitlines()[-3:-1], seconds=_since(started))
            return False
        self.put(name, **{"seconds": _since(started), **found})
        return True

    def row(self, table: str, **columns: Any) -> None:
        """Adds a row of a table to publish."""
        self.put(f"row of {table}", table=table, **columns)


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line of JSON to a file; it is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(out: Path) -> list[dict[str, Any]]:
    """All lines so far; a line that a process was killed in is left out."""
    found = []
    for line in (out / FACTS_FILE).read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)
