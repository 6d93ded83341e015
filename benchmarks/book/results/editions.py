"""The current tree against an earlier commit (benchmarks.against)."""

from functools import partial

from benchmarks.book.markdown import TO, spread, table
from benchmarks.book.result import Answer, Result

AT_ONCE = (
    "Both trees train at the same time on the same cores, so that each has about half of its own speed; they start in turn."
)
IN_TURN = "The trees train and start in turn."
VERDICTS = {"bytes": "the same bytes", "tensors": "the same tensors, under other names", "no heads": "none"}


def _against(answer: Answer, remark: str = "") -> str:
    figures = [
        (
            figure["name"],
            *(spread(figure[tree], _form(figure)) for tree in ("earlier", "current")),
            spread(figure["ratio"], ".3f"),
            f"{'&ge;' if _is_rate(figure) else '&le;'} {figure['target']:g}, {'met' if figure['holds'] else '**missed**'}",
        )
        for figure in answer["figures"]
    ]
    return f"""
Commit `{answer["current"][:9]}` against `{answer["earlier"][:9]}`, under the same Python. {remark}

{_bits(answer) if "bits" in answer else ""}

{table(("samples/s, or seconds to start", "earlier", "current", "current / earlier", "target"), figures)}

{AT_ONCE if answer.get("at_once") else IN_TURN}
"""


def _bits(answer: Answer) -> str:
    same = [(one["name"], _verdict(one["network"]), _verdict(one["heads"])) for one in answer["bits"]]
    rounding = answer["replicas_against_none"]
    return f"""Each trained the same runs with its own commands and exported what they had learned:

{table(("run", "exported network", "exported heads"), same)}

Without batch normalisation, replicas differ from a single process by {rounding["largest_difference"]:.0e} at most."""


def _verdict(found: str) -> str:
    return VERDICTS.get(found, f"**{found}**")


def _is_rate(figure: Answer) -> bool:
    return figure["unit"] == "samples/s"


def _form(figure: Answer) -> str:
    return ",.0f" if _is_rate(figure) else ".2f"


def _repeats(answer: Answer) -> str:
    counts = sorted({figure["n"] for figure in answer["figures"]})
    return f"n = {TO.join(map(str, counts))} repeats; medians and ranges"


AGAINST = Result("against_first_edition", "The first edition: the same bits, the same speed", _repeats, _against)
BEFORE_GPUS = Result(
    "against_before_gpus",
    "What support of GPUs costs on CPUs",
    _repeats,
    partial(_against, remark="The earlier one has no links and no stages for GPUs."),
)
