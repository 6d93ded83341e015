"""Predictions against measurements (benchmarks.planner, benchmarks.simulate), and Ray against torchrun (.ray_start)."""

from benchmarks.book.markdown import at_least, percent, setup, spread, spread_of, table, within
from benchmarks.book.result import Answer, Result
from benchmarks.simulation.studies import HEAD_OVERHEAD, JITTER, MOST_MICRO_BATCHES

CLOSE = (0.95, 1.05)
RAY_TARGET = 0.97


def _planner(answer: Answer) -> str:
    found = answer["predicted_over_measured"]
    rehearsed, layers = found["rehearsed"], found["layers"]
    rows = [
        ("a rehearsal of the cut", spread(rehearsed, ".2f"), within(rehearsed["median"], *CLOSE)),
        ("single layers", spread(layers, ".2f"), ""),
    ]
    return f"""
Predicted throughput over the throughput of a run. {setup(answer["settings"])}, 2 stages.

{table(("predicted from", "predicted / measured", "target"), rows)}
"""


def _validation(answer: Answer) -> str:
    rows = []
    for row in answer["rows"]:
        ratio = row["last_stage"]
        target = within(ratio["median"], *CLOSE) if "replay" not in row["trial"] else ""
        rows.append((row["trial"], spread(ratio, ".2f"), target))
    return f"""
The simulator's only input is each stage's own seconds per batch, measured while all stages work without links.
VGG8b at an eighth of its width, batch 64.

{table(("run", "simulated / measured throughput", "target"), rows)}

It is optimistic when stages outnumber cores: it shares cores evenly and models neither context switches nor caches. With one
batch of room it omits the time that a waiting stage takes to wake up.
"""


def _plan(answer: Answer) -> str:
    scale = answer["scale"]
    chosen = [scale["stages"].index(count) for count in (4, 16, 64, 256, 1024)]
    rows = [
        (name, *(f"{curve[position]:,.0f}" if position > 3 else f"{curve[position]:,.1f}" for position in chosen))
        for name, curve in scale["speed_up"].items()
    ]
    header = ("speed-up over one process", *(f"{scale['stages'][position]:,} stages" for position in chosen))
    return f"""
**Predictions of the simulator, not measurements.** Even stages with {percent(JITTER, 0)} jitter and heads that cost
{percent(HEAD_OVERHEAD, 0)}; schedules with micro-batches use 4 per stage, {MOST_MICRO_BATCHES} at most.

{table(header, rows)}

The plot adds slow links, one slowed stage and its replicas, and jitter against the capacity of buffers.
"""


def _ray(answer: Answer) -> str:
    repeats = answer["repeats"]
    rows = []
    for words, key, form in (
        ("samples/s", "samples_per_s", ",.0f"),
        ("seconds to the first trained batch", "start_s", ".1f"),
    ):
        plain, ray = ([repeat[side][key] for repeat in repeats] for side in ("torchrun", "ray"))
        ratio = sorted(ours / theirs for ours, theirs in zip(ray, plain, strict=True))
        target = at_least(ratio[len(ratio) // 2], RAY_TARGET) if key == "samples_per_s" else ""
        rows.append((words, spread_of(plain, form), spread_of(ray, form), spread_of(ratio, ".2f"), target))
    same = sum(repeat["same_bytes"] for repeat in repeats)
    return f"""
{setup(answer["settings"])}, 2 stages. Cluster and driver share the cores with the stages.

{table(("", "torchrun", "Ray", "Ray / torchrun", "target"), rows)}

The stages are the same processes with the same links, and the parameters have equal bytes in {same} of {len(repeats)}
repeats. What Ray lacks on one machine are the cores that its own processes take. Starting a cluster is not included.
"""


PLANNER = Result(
    "planner",
    "The planner: predicted against measured",
    lambda answer: f"n = {len(answer['repeats'])} repeats; medians and ranges",
    _planner,
)
VALIDATION = Result(
    "simulator_validation",
    "Simulator against real runs",
    lambda answer: f"n = {len(answer['runs']) // len(answer['rows'])} repeats; medians and ranges",
    _validation,
)
PLAN = Result(
    "simulator_plan", "Beyond one machine, simulated", lambda answer: "one simulation of each", _plan, shows_plot=True
)
RAY = Result(
    "ray_start",
    "Ray against torchrun",
    lambda answer: f"n = {len(answer['repeats'])} interleaved repeats; medians and ranges",
    _ray,
)
