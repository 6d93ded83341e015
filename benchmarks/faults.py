"""A campaign of faults: runs that are struck at random moments in random stages, go on, and must lose nothing.

    python -m benchmarks.faults --count 100 --seeds 0 1 --out benchmarks/results/faults [--smoke]

Every trial draws a policy of links and one of faults, a fault, a stage, a moment, and whether stage 0 reads image files with
loader processes. Strikes come from outside (signals to a process, to the groups of all of them, to the launcher), from
inside, at the edges of a run (start-up, last evaluation, last save, summary), and from the disk: full, or with a damaged
newest checkpoint. A run that ends is started again in its
folder, as torchrun and --resume auto would, until it ends by itself; with faults.policy=isolate the struck stage comes back
alone. With FIFO its parameters must then equal those of a run that was never struck, bit for bit; with replay its accuracy
must be within TOLERANCE of the lowest of REPLAYS such runs, slowed alike where the fault is a slow stage or link. Detection
is counted from the strike to the end of all processes (restart), or to the start of the stage's next process (isolate);
"training again" from then to the struck stage's next training record (processes come from a fork server: without the
seconds in which Python and torch are imported). OUT.json grows trial by trial, and goes on from the trials that it has.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.campaign.images import write_images
from benchmarks.campaign.judge import Result, make_reference, run_trial
from benchmarks.campaign.trials import RUN, Trial, draw, draw_few
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.telemetry.machine import hardware, versions


def table(results: list[Result]) -> Table:
    """One line per policy and fault."""
    names = ("links", "faults.policy", "fault", "trials", "right", "detected s: p50", "p95", "training again s: p50", "p95")
    shown = Table(*names, "orphans", "leaked")
    kinds = [(one.trial.policy, one.trial.recovery, one.trial.fault) for one in results]
    for kind in sorted(set(kinds)):
        group = [one for one, its_kind in zip(results, kinds, strict=True) if its_kind == kind]
        shown.add_row(
            *kind,
            str(len(group)),
            str(sum(one.is_right for one in group)),
            *_percentiles([one.detect_s for one in group]),
            *_percentiles([one.again_s for one in group]),
            str(sum(one.orphans for one in group)),
            str(sum(len(one.leaked) for one in group)),
        )
    return shown


def _percentiles(values: list[float | None]) -> tuple[str, str]:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "", ""
    return f"{statistics.median(known):.2f}", f"{known[min(len(known) - 1, int(0.95 * len(known)))]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="trials of each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--smoke", action="store_true", help="few trials, on a shorter run")
    parser.add_argument(
        "--policies",
        nargs="+",
        choices=("restart", "isolate"),
        default=["restart", "isolate"],
        help="faults.policy to draw from",
    )
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    # Long enough that a stage is struck in the middle: who strikes learns of the processes half a second after they start.
    run = (*RUN, "training.epochs=8", "evaluation.every_epochs=8") if arguments.smoke else RUN
    trials = [trial for seed in arguments.seeds for trial in _drawn(seed, arguments)]
    path = arguments.out.with_suffix(".json")
    results = _known(path, run)
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / "images")
        left = [(number, trial) for number, trial in enumerate(trials) if trial not in results]
        reference = make_reference(run, Path(folder), images, [trial for _, trial in left])
        for number, trial in track(left, "trials", console=Console(stderr=True)):
            results[trial] = run_trial(trial, run, Path(folder) / f"trial{number}", images, reference)
            _write(path, run, _in_order(trials, results))
    found = _in_order(trials, results)
    Console(width=140).print(table(found), f"{sum(one.is_right for one in found)} of {len(found)} right")


def _in_order(trials: Sequence[Trial], results: Mapping[Trial, Result]) -> list[Result]:
    return [results[trial] for trial in trials if trial in results]


def _drawn(seed: int, arguments: argparse.Namespace) -> list[Trial]:
    return draw_few(seed, 40) if arguments.smoke else draw(arguments.count, seed, 200, arguments.policies)


def _known(path: Path, run: Sequence[str]) -> dict[Trial, Result]:
    """What the file has of such runs."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = before.get("trials", []) if before.get("settings") == list(run) else []
    found = [Result(**{**row, "trial": Trial(**row["trial"])}) for row in rows]
    return {one.trial: one for one in found}


def _write(path: Path, run: Sequence[str], results: Sequence[Result]) -> None:
    answer: dict[str, Any] = {
        "command": "python -m benchmarks.faults " + " ".join(sys.argv[1:]),
        "settings": list(run),
        "hardware": hardware(),
        "versions": versions(),
        "right": sum(one.is_right for one in results),
        "trials": [asdict(one) for one in results],
    }
    write_atomically(path, json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
