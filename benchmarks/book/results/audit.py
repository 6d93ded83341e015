"""Speed over peak memory, local learning and back-propagation that saves memory (benchmarks.audit)."""

from collections.abc import Mapping
from typing import Any

from benchmarks.book.markdown import listed, setup, spread, table
from benchmarks.book.result import Answer, Result


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    ratio = f"{spread(one['over_rival'], '.2f')}, {one['rival']}" if "rival" in one else "none needs so little"
    name = f"**{one['name']}**" if one["local"] else str(one["name"])
    sizes = (f"{one['largest_bytes'] / 1e6:,.0f}", f"{one['all_bytes'] / 1e6:,.0f}")
    return str(one["cores"]), name, spread(one["samples_per_s"]), *sizes, ratio if one["local"] else ""


def _gains(answer: Answer) -> list[str]:
    """Rows of local learning that nothing which needs no more memory has reached in any repeat."""
    own = [one for one in answer["rows"] if one["local"]]
    gains = [one for one in own if "rival" not in one or one["over_rival"]["min"] > 1]
    return [f"{one['name']} on {one['cores']} core{'s' if one['cores'] > 1 else ''}" for one in gains]


def _text(answer: Answer) -> str:
    header = (
        "cores",
        "trained by",
        "samples/s",
        "largest process, MB",
        "all processes, MB",
        "against the fastest back-propagation that needs no more memory",
    )
    gains = _gains(answer)
    verdict = (
        f"For its memory in the largest process, {listed(gains)} is faster than every back-propagation that was measured."
        if gains
        else "Local learning is nowhere faster than every back-propagation that needs no more memory in its largest process."
    )
    return f"""
Back-propagation, also with gradients accumulated over micro-batches and with recomputed activations
(torch.utils.checkpoint), beside local learning on as many cores: threads there, processes here. {setup(answer["settings"])},
synthetic images, four blocks, heads `conv`. Memory is the peak above what a process holds before it trains; pages that two
processes share count twice.

{table(header, [_row(one) for one in answer["rows"]])}

{verdict} Local learning's accuracy is not that of back-propagation: the tables of gaps above say what it costs.
"""


AUDIT = Result(
    "audit",
    "Speed for the same memory",
    lambda answer: f"n = {len(answer['runs'])} repeats; medians and ranges",
    _text,
    shows_plot=True,
)
