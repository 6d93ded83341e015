"""Whether a long run grows (benchmarks.endurance)."""

from benchmarks.book.markdown import table
from benchmarks.book.result import Answer, Result


def _endurance(answer: Answer) -> str:
    rows = [
        (
            one["role"],
            _change([size / 1e6 for size in one["resident_bytes"]], ".1f"),
            _change(one["descriptors"], "g"),
            _change(one["threads"], "g"),
        )
        for one in answer["processes"]
    ]
    header = ("process", "resident MB", "descriptors", "threads")
    return f"""
{answer["minutes"]:g} minutes of tiny steps, {answer["steps"]:,} in all, with records, evaluations and checkpoints, ended by
SIGTERM with exit code {answer["exit_code"]}. Of each process the median of the second tenth of the time, and of the last.

{table(header, rows)}
"""


def _change(values: list[float], form: str) -> str:
    early, late = values
    return f"{early:{form}} &rarr; {late:{form}}"


ENDURANCE = Result("endurance", "A long run", lambda answer: "n = 1 run; medians over its looks", _endurance)
