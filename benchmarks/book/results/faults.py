"""Runs whose stages fail (benchmarks.failures, benchmarks.faults), and what checkpoints cost (benchmarks.checkpoints)."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.book.markdown import at_least, listed, percent, setup, spread, table
from benchmarks.book.result import Answer, Result
from benchmarks.campaign.judge import REPLAYS, TOLERANCE
from benchmarks.campaign.trials import MOST_READS

STRIKES = {
    "kill -9": "kill -9",
    "SIGSTOP": "SIGSTOP",
    "hang": "computes forever",
    "raise": "raises an exception",
    "nan": "NaN loss",
    "exit": "exits",
    "ctrl-c": "Ctrl-C",
}
CHECKPOINT_TARGET = 0.97


def _campaign(answer: Answer) -> str:
    trials = answer["trials"]
    rows = []
    for policy in ("fifo", "replay"):
        for recovery in ("restart", "isolate"):
            group = [one for one in trials if (one["trial"]["policy"], one["trial"]["recovery"]) == (policy, recovery)]
            right = f"{sum(one['is_right'] for one in group)} of {len(group)}"
            seconds = [_percentiles([one[key] for one in group]) for key in ("detect_s", "again_s")]
            rows.append((policy, recovery, right, *seconds))
    farthest = max(one["expected"] - one["accuracy"] for one in trials if one["trial"]["policy"] == "replay")
    faults = listed(sorted({one["trial"]["fault"].replace(", ", " + ") for one in trials}, key=str.lower))
    header = ("`buffers.policy`", "`faults.policy`", "right", "detected, s: p50 (p95)", "training again, s: p50 (p95)")
    left = sum(one["orphans"] + len(one["leaked"]) for one in trials)
    streamed = sum(one["trial"].get("is_streamed", False) for one in trials)
    return f"""
{len(trials)} runs of {len(trials[0]["exit_codes"][0])} processes on digits, each with one fault at a random moment in a
random stage: {faults}. In {streamed} of them stage 0 reads image files with loader processes. With `restart` the run ends
and is started again in its folder; with `isolate` only the failed stage is started again.

{table(header, rows)}

A FIFO run is right if its parameters equal those of an undisturbed run, bit for bit. A replay run is right if its accuracy
is at most {100 * TOLERANCE:g} points below the lowest of {REPLAYS} undisturbed runs (equally slow ones, if the fault is
slowness); the worst was {100 * farthest:.1f} points below. Replay runs have `buffers.max_reuse={MOST_READS}`, and 1 if a
stage or link is slow for the whole run, as a stage is that reads files: without a limit, the stages behind a stopped one
spend their step budgets on its last few batches.

Detected: seconds from the fault to the end of all processes, or to the start of the stage's next process. SIGTERM takes
longest, since the run saves first. Processes come from a fork server or a keeper, so importing Python and torch is not
included.
Orphaned processes, leaked shared memory and temporary files: {left or "none"}.
"""


def _percentiles(values: Sequence[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return f"{statistics.median(known):.2f} ({known[min(len(known) - 1, int(0.95 * len(known)))]:.2f})"


def _campaign_headline(answer: Answer) -> tuple[str, str]:
    again = statistics.median(one["again_s"] for one in answer["trials"] if one["again_s"] is not None)
    found = f"{answer['right']} of {len(answer['trials'])} runs recover correctly, with FIFO bit for bit"
    return "stages killed, stopped, out of disk", f"{found}; a failed stage trains again after {again:.2f} s (median)"


def _failures(answer: Answer) -> str:
    rows = [_strike(outcome) for outcome in answer["outcomes"]]
    processes = 1 + max(outcome["stage"] for outcome in answer["outcomes"])
    header = ("what happens", "to stage", "seconds to the end of all processes", "exit code", "cause printed", "orphans")
    return f"""
{processes} processes under torchrun with `faults.policy=restart`; both deadlines are {answer["hang_s"]:g} s.

{table(header, rows)}

A stage that computes forever also leaves the stacks of its threads in `logs/stageK.stacks`.
"""


def _strike(outcome: dict[str, Any]) -> tuple[str, ...]:
    is_ctrl_c = outcome["strike"] == "ctrl-c"
    names = "once, names the stage" if outcome["names_the_stage"] else "**names another stage**"
    cause = "once" if is_ctrl_c else names if outcome["said_once"] else "**more than once**"
    stage = "all" if is_ctrl_c else str(outcome["stage"])
    seconds, code, orphans = f"{outcome['seconds']:.1f}", str(outcome["exit_code"]), str(outcome["orphans"] or "none")
    return STRIKES[outcome["strike"]], stage, seconds, code, cause, orphans


def _checkpoints(answer: Answer) -> str:
    ratio, stalled = answer["ratio"], answer["stalled_share"]
    rows = [
        ("throughput with / without checkpoints", spread(ratio, ".3f"), at_least(ratio["median"], CHECKPOINT_TARGET)),
        ("share of a stage's time spent copying its state", f"{percent(stalled['median'])}", ""),
    ]
    return f"""
A checkpoint every {answer["interval_steps"]} steps. {setup(answer["settings"])}, 2 stages.

{table(("", "measured", "target"), rows)}
"""


CAMPAIGN = Result(
    "faults",
    "A campaign of faults",
    lambda answer: f"n = {len(answer['trials'])} runs",
    _campaign,
    headline=_campaign_headline,
)
FAILURES = Result("failures", "What happens when a stage fails", lambda answer: "n = 1 of each", _failures)
CHECKPOINTS = Result(
    "checkpoints",
    "What checkpoints cost",
    lambda answer: f"n = {len(answer['repeats'])} interleaved repeats; median and range",
    _checkpoints,
)
