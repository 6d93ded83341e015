"""The file in a run's folder that reports what every process is doing."""

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_json

from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.errors import first_problem
from greedypipe.workers.telemetry.records import RunStatus, StageRow
from greedypipe.workers.telemetry.summary_file import SUMMARY, read_summary
from greedypipe.workers.validator import Validator

STATUS = "status.json"
_STATUSES: Validator[RunStatus] = Validator(RunStatus)


def write_status(folder: Path, rows: Sequence[StageRow | None], labels: list[str], total_steps: int) -> None:
    """Replaces the run's status.json; does not block for the disk."""
    status = RunStatus(time.time(), total_steps, labels, list(rows))
    write_atomically(folder / STATUS, to_json(status, inf_nan_mode="constants").decode(), durable=False)


def read_status(folder: Path) -> RunStatus:
    """Reads what `write_status` wrote.

    Raises:
        ValueError: No run has started in this folder.
    """
    try:
        return _STATUSES.validate_json((folder / STATUS).read_bytes())
    except ValidationError as error:
        raise ValueError(f"{folder / STATUS}: {first_problem(error)}") from None
    except FileNotFoundError:
        raise ValueError(f"{folder}: got no {STATUS}, allowed: the folder of a run that has started") from None


def read_ending(folder: Path) -> str:
    """How the run ended after its status.json was written: the status in its summary; empty if it has not ended."""
    summary = read_summary(folder)
    # A summary that is older dates from before the run was resumed.
    is_newer = summary and (folder / SUMMARY).stat().st_mtime >= (folder / STATUS).stat().st_mtime
    return summary.status if summary and is_newer else ""
