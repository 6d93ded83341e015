"""Throughput of decoupled training against its alternatives, in one run (benchmarks.throughput)."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.book.markdown import at_least, percent, setup, spread, table
from benchmarks.book.result import Answer, Result

FIFO = "greedypipe, FIFO"
SHOWN = {
    FIFO: f"**{FIFO}**",
    "greedypipe, replay": "greedypipe, replay (its slower stage)",
    "bound, all stages at once": "bound: all stages at once, without links",
    "stage 0 alone": "bound: stage 0 alone, without links",
    "stage 1 alone": "bound: stage 1 alone, without links",
}
SECTIONS = {
    "headline": "2 stages",
    "4 stages on 2 cores": "4 stages on 2 cores",
    "tiny steps": "an MLP on digits, steps of about 1 ms",
}


def _repeats(answer: Answer) -> str:
    count = len(answer["sections"]["headline"]["repeats"])
    return f"n = {count} interleaved repeats; medians and ranges; ratios are taken within a repeat"


def _rates(section: Mapping[str, Any]) -> str:
    repeats = len(section["repeats"])
    always = [row for row in section["rows"] if row["repeats"] == repeats]
    rows = [(SHOWN.get(row["name"], row["name"]), spread(row["samples_per_s"])) for row in always]
    return table(("trained by", "samples/s"), rows)


def _measured_once(section: Mapping[str, Any]) -> str:
    once: dict[str, list[str]] = {}
    for row in section["rows"]:
        if row["repeats"] < len(section["repeats"]) and "samples_per_s" in row:
            schedule, _, micro_batches = row["name"].partition(", ")
            once.setdefault(schedule, []).append(f"{row['samples_per_s']['median']:,.0f} with {micro_batches}")
    return "; ".join(f"{schedule} {', '.join(rates)}" for schedule, rates in once.items())


def _figures(answer: Answer) -> Iterator[tuple[str, ...]]:
    for name, words in SECTIONS.items():
        for figure in answer["sections"][name]["figures"]:
            ratio, target = figure["ratio"], figure["target"]
            yield words, figure["name"], spread(ratio, ".2f"), at_least(ratio["median"], target)


def _stage(section: Mapping[str, Any], stage: int, key: str) -> float:
    return statistics.median(repeat["stages"][FIFO][stage][key] for repeat in section["repeats"])


def _send_s(section: Mapping[str, Any]) -> float:
    links = [repeat["stages"][FIFO][0]["link"] for repeat in section["repeats"]]
    return statistics.median(link["send_s"] / link["messages"] for link in links)


def _text(answer: Answer) -> str:
    headline = answer["sections"]["headline"]
    rate = {row["name"]: row["samples_per_s"]["median"] for row in headline["rows"] if "samples_per_s" in row}
    heads = 1 - rate["DGL in one loop, 1 thread"] / rate["back-propagation, 1 thread"]
    own_ms = [1e3 * _stage(headline, stage, "step_time_s") for stage in (0, 1)]
    return f"""
{setup(headline["settings"])}, synthetic images; one thread per process unless the row says otherwise.
The planner cut the network. A rate is that of the slowest stage while all stages train.

{_rates(headline)}

Each schedule of torch.distributed.pipelining is shown with the number of micro-batches that was fastest in the first
repeat. The others were measured once, in samples/s: {_measured_once(headline)}.

{table(("case", "ratio", "measured", "target"), list(_figures(answer)))}

Where the time goes: a batch takes stage 0 {own_ms[0]:.0f} ms and stage 1 {own_ms[1]:.0f} ms. A send takes
{1e3 * _send_s(headline):.1f} ms, and stage 0 waits for room {percent(_stage(headline, 0, "wait_output_fraction"))} of its
time. The gap to back-propagation on all cores comes from the cut, which is uneven: total work / 2 cores is what an even cut
would reach. The auxiliary heads cost {percent(heads, 0)}, the difference between DGL in one loop and back-propagation.

On one machine a pipeline gains from cores, not from decoupling: total work / cores is the limit. That is why
back-propagation on all cores stands in the table.
"""


def _headline(answer: Answer) -> tuple[str, str]:
    ratio = {figure["name"]: spread(figure["ratio"], ".2f") for figure in answer["sections"]["headline"]["figures"]}
    best, all_cores = ratio["FIFO / best torch pipelining"], ratio["FIFO / back-propagation, 2 threads"]
    found = (
        f"{best} times the best schedule of torch.distributed.pipelining, {all_cores} times back-propagation on all cores"
    )
    return "throughput, 2 stages on 2 cores", f"{found} (n = {len(answer['sections']['headline']['repeats'])})"


THROUGHPUT = Result("throughput", "Throughput", _repeats, _text, headline=_headline)
