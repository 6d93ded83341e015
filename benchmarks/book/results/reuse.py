"""How often a replay buffer lets one batch be read (benchmarks.reuse)."""

from benchmarks.book.markdown import setup, spread, table
from benchmarks.book.result import Answer, Result

UNLIMITED, LIMITED = "max_reuse=0", "max_reuse=2"


def _reuse(answer: Answer) -> str:
    rows = [
        (
            f"stage {row['slow_stage']}" if row["slow_stage"] >= 0 else "none",
            "replay, no limit" if row["coupling"] == UNLIMITED else row["coupling"],
            *(_percents(row[key]) for key in ("accuracy", "ensemble")),
            *(
                spread(row[key], form)
                for key, form in (("train_s", ".1f"), ("reuse_mean", ".2f"), ("staleness_mean", ".1f"))
            ),
        )
        for row in answer["rows"]
    ]
    header = ("slowed", "coupling", "accuracy, %", "of the ensemble, %", "seconds", "reuse", "staleness")
    return f"""
Replay buffers whose batches may be read once, twice or without a limit (`buffers.max_reuse`), and FIFO. The slowed stage
takes {answer["factor"]:g} times its time for every batch (it sleeps). {setup(answer["settings"])}, on digits, one stage per
block. Reuse and staleness are of the stage with the most.

{table(header, rows)}

Without a limit a fast stage spends its step budget on few batches, sent by earlier states of the stages before it. Two reads
cost nothing against one, and no limit saves no time: a run lasts as long as its slowest stage. The default is 2, so that a
stage behind one that is up to twice as slow keeps its speed.
"""


def cost_of_no_limit(answer: Answer) -> tuple[float, float]:
    """The least and the most, over the slowed stages, of what the accuracy loses against two reads; medians."""
    found = {(row["slow_stage"], row["coupling"]): row["accuracy"]["median"] for row in answer["rows"]}
    lost = [found[stage, LIMITED] - found[stage, UNLIMITED] for stage, coupling in found if coupling == UNLIMITED]
    return min(lost), max(lost)


def _percents(found: dict[str, float]) -> str:
    return spread({key: 100 * value for key, value in found.items()}, ".1f")


REUSE = Result(
    "reuse",
    "How often a batch may be read",
    lambda answer: f"n = {answer['rows'][0]['seeds']} seeds; medians and ranges",
    _reuse,
)
