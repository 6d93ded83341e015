"""`summary.json` in a run's folder: its figures once it has ended, or why it has failed."""

from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_json

from greedypipe.workers.atomic import write_record
from greedypipe.workers.errors import first_problem
from greedypipe.workers.telemetry.results import Failure, Summary
from greedypipe.workers.validator import Validator

SUMMARY = "summary.json"
_SUMMARIES: Validator[Summary | Failure] = Validator(Summary | Failure)


def write_summary(folder: Path, summary: Summary | Failure) -> None:
    """Replaces the run's `summary.json`, without the prediction where there was none. Blocks for the disk; where the write
    fails, that is reported."""
    left_out = {"predicted"} if isinstance(summary, Summary) and summary.predicted is None else None
    write_record(folder / SUMMARY, to_json(summary, indent=2, exclude=left_out, inf_nan_mode="constants").decode() + "\n")


def read_summary(folder: Path) -> Summary | Failure | None:
    """What `write_summary` has left in a run's folder; None where there is nothing.

    Raises:
        ValueError: The file holds something else; names it.
    """
    path = folder / SUMMARY
    try:
        return _SUMMARIES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}") from None
