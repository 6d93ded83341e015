"""The same run under torchrun and on a Ray cluster: throughput, the seconds until it trains, and whether the bytes agree.

    python -m benchmarks.ray_start --out benchmarks/results/ray_start [--repeats 5]

Both are started as users start them, one after the other, in turn. The cluster is one of this machine, started before; its
own start is not counted, as a cluster is there already. Needs `pip install 'greedypipe[ray]'`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.engines.timing import spread
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.on_host.rehearsal import AHEAD_STEPS
from greedypipe.workers.telemetry.machine import hardware, versions

ROOT = Path(__file__).resolve().parent.parent
STAGES, WARMUP_STEPS = 2, 4
RUN = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.batch_size=128",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.25",
    "head.name=mlp_sr",
    "partition.blocks=2",
    "partition.boundaries=[conv3]",
    "training.epochs=1",
    "logging.interval_steps=1",
)
SMALL = ("model.width=0.05", "data.batch_size=16", "data.shape=[3,8,8]", "head.name=linear")


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """A cluster of this machine, for the body: the environment in which --address auto finds it."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as home:
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "HOME": home}
        os.environ.update(settings)
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": STAGES, "include_dashboard": False})
        try:
            yield os.environ | {"RAY_ADDRESS": started.address}
        finally:
            started.shutdown()


def start(command: list[str], settings: list[str], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Runs a command to its end, and reads what it was worth."""
    began_s = time.time()
    arguments = [*settings, f"run.folder={folder.parent}", f"run.name={folder.name}"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    outcome = Outcome([0] * STAGES, [], folder)
    batch = next(int(one.partition("=")[2]) for one in reversed(settings) if one.startswith("data.batch_size="))
    return {
        "samples_per_s": min(outcome.steady_samples_per_s(batch, WARMUP_STEPS)),
        "start_s": min(outcome.records(stage)[0].unix_s for stage in range(STAGES)) - began_s,
        "trains_everywhere_s": max(outcome.records(stage)[0].unix_s for stage in range(STAGES)) - began_s,
        "whole_s": time.time() - began_s,
    }


def measure(settings: list[str], repeats: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Per repeat what both launchers gave, and whether their parameters have the same bytes."""
    python = sys.executable
    launchers = {
        "torchrun": [python, "-m", "torch.distributed.run", f"--nproc_per_node={STAGES}", "launch/run.py"],
        "ray": [python, "launch/ray_run.py", "--address", "auto", "--stages", str(STAGES)],
    }
    found = []
    with cluster() as environment, tempfile.TemporaryDirectory() as folder:
        environment = environment | {"OMP_NUM_THREADS": "1"}
        for number in range(repeats):
            one: dict[str, Any] = {
                name: start(command, settings, Path(folder) / f"{name}{number}", environment)
                for name, command in launchers.items()
            }
            left, right = (network_state(Path(folder) / f"{name}{number}") for name in launchers)
            one["same_bytes"] = list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)
            found.append(one)
            say(f"repeat {number + 1} of {repeats}")
    return found


def table(found: list[dict[str, Any]]) -> Table:
    """One line per figure; medians with range."""
    shown = Table("", "torchrun", "Ray", "Ray / torchrun")
    names = {
        "samples_per_s": "samples/s",
        "start_s": "seconds to the first trained batch",
        "trains_everywhere_s": "seconds until every stage has trained one",
        "whole_s": "seconds of the whole run",
    }
    for key, name in names.items():
        columns = [spread([one[launcher][key] for one in found]) for launcher in ("torchrun", "ray")]
        columns.append(spread([one["ray"][key] / one["torchrun"][key] for one in found]))
        shown.add_row(name, *(f"{one['median']:,.2f} ({one['min']:,.2f} .. {one['max']:,.2f})" for one in columns))
    shown.add_row("runs with equal bytes", "", "", f"{sum(one['same_bytes'] for one in found)} of {len(found)}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--smoke", action="store_true", help="a small network, once")
    arguments = parser.parse_args()
    steps = WARMUP_STEPS + AHEAD_STEPS + (4 if arguments.smoke else arguments.steps)
    settings = [*RUN, *(SMALL if arguments.smoke else ())]
    batch = 16 if arguments.smoke else 128
    settings.append(f"data.samples={steps * batch}")
    repeats = 1 if arguments.smoke else arguments.repeats
    found = measure(settings, repeats, lambda text: print(text, file=sys.stderr, flush=True))
    Console(width=140).print(table(found))
    answer = {
        "command": "python -m benchmarks.ray_start " + " ".join(sys.argv[1:]),
        "settings": settings,
        "hardware": hardware(),
        "versions": versions(),
        "repeats": found,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
