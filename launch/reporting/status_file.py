"""The file in a run's folder that says what every process is doing."""

import json
import time
from pathlib import Path
from typing import Any

STATUS = "status.json"


def write_status(folder: Path, rows: list[dict[str, Any] | None], labels: list[str], total_steps: int) -> None:
    """Replaces the run's status.json; does not block for the disk."""
    aside = folder / f"{STATUS}.partial"
    aside.write_text(json.dumps({"unix_s": time.time(), "total_steps": total_steps, "labels": labels, "stages": rows}))
    aside.replace(folder / STATUS)


def read_status(folder: Path) -> dict[str, Any]:
    """What `write_status` has left, and how the run has ended where it has.

    Raises:
        ValueError: The folder holds no run that has begun.
    """
    try:
        status = json.loads((folder / STATUS).read_text())
        summary = folder / "summary.json"
        # An older summary is of the time before the run went on.
        if summary.exists() and summary.stat().st_mtime >= (folder / STATUS).stat().st_mtime:
            status["ended"] = json.loads(summary.read_text())["status"]
        return status
    except FileNotFoundError:
        raise ValueError(f"{folder}: got no {STATUS}, allowed: the folder of a run that has begun") from None
