"""What staleness costs in accuracy (benchmarks.staleness)."""

from functools import partial

from benchmarks.book.markdown import percent, setup, spread, table
from benchmarks.book.result import Answer, Result


def _staleness(answer: Answer, remark: str) -> str:
    rows = [
        (
            row["order"],
            *((f"{row['factor']:g}", str(row["capacity"])) if row["order"] == "random" else ("", "")),
            *(_percents(row[key]) for key in ("accuracy", "ensemble")),
            *((spread(row["staleness_mean"], ".1f"), spread(row["reuse_mean"], ".2f")) if _has_buffers(row) else ("", "")),
            percent(row["unread"]["median"], 0) if _has_buffers(row) else "",
        )
        for row in answer["rows"]
    ]
    header = ("turns", "S", "M", "accuracy, %", "of the ensemble, %", "staleness", "reuse", "never read")
    return f"""
DGL's buffer experiments (Belilovsky et al., Figures 5 and 6), simulated in one process without clocks: the next block to
act is drawn at random, the slow one S times less often, with a replay buffer of M batches between two blocks. Each block in
turn is the slow one. Every block takes the same number of steps. {setup(answer["settings"])}. {remark}

{table(header, rows)}

Ranges are those over seeds and slow blocks. Staleness, reuse and the share that was never read are of the buffers next to
the slow block. The figures follow from seed and settings, not from the speed of the machine.
"""


def _has_buffers(row: Answer) -> bool:
    return row["order"] == "random"


def _percents(found: dict[str, float]) -> str:
    return spread({key: 100 * value for key, value in found.items()}, ".1f")


def _result(name: str, title: str, remark: str) -> Result:
    return Result(
        name,
        title,
        lambda answer: f"n = {len({run['seed'] for run in answer['runs']})} seeds; medians and ranges",
        partial(_staleness, remark=remark),
        shows_plot=True,
    )


STALENESS = _result(
    "staleness",
    "What staleness costs",
    "Data: handwritten digits, of which few are held out: where ranges overlap, a difference is chance.",
)
