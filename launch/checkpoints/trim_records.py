"""What a resumed run keeps of the records that it wrote before: those up to the checkpoint that it goes on from.

No record is worth a run: unreadable lines are dropped, and a file that cannot be written is reported and stays as it is.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from greedypipe.launch.checkpoints.manifest import Manifest
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.atomic import reason_of
from greedypipe.workers.jsonl import salvage_lines, write_lines
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.results import EVALUATIONS, METRICS, StepRecord


def keep_evaluations(metrics: Path, manifest: Manifest, plan: Plan) -> tuple[int, ...]:
    """Drops evaluations of later parameters; returns the epochs that are left."""
    path = metrics / "evaluations.jsonl"
    last = manifest.batch_id // plan.blueprint.steps_per_epoch
    kept = [evaluation for evaluation in salvage_lines(path, EVALUATIONS) if evaluation.epoch <= last]
    with _reported(path):
        write_lines(path, kept)
    return tuple(evaluation.epoch for evaluation in kept)


def keep_metrics(metrics: Path, manifest: Manifest, plan: Plan) -> None:
    """Drops records of later steps, and gives each block's records to the stage that hosts it now, to its first replica.

    With another cut the records are about other blocks, so all of them are set aside.
    """
    with _reported(metrics):
        _keep_metrics(metrics, manifest, plan)


def _keep_metrics(metrics: Path, manifest: Manifest, plan: Plan) -> None:
    files = sorted(metrics.glob("stage*.jsonl"))
    partition = manifest.config["partition"]
    now = plan.config.partition.model_dump(mode="json")
    if (partition["blocks"], partition["boundaries"]) != (now["blocks"], now["boundaries"]) and now["boundaries"] != "auto":
        for file in files:
            file.replace(file.with_suffix(f".before-{manifest.batch_id}"))
        return
    # Replicas of a stage record the same steps: those of the first one are kept.
    firsts = [file for file in files if file.stem.partition(".")[2] in ("", "0")]
    records = [record for file in firsts for record in salvage_lines(file, METRICS) if isinstance(record, StepRecord)]
    for seat in plan.placement.seats():
        blocks = plan.placement.blocks_of(seat.stage) if seat.leads_stage else ()
        kept = [one for one in records if one.block in blocks and one.step <= manifest.steps.get(one.block, 0)]
        write_lines(metrics / f"stage{seat.label}.jsonl", kept)
    labels = {f"stage{seat.label}" for seat in plan.placement.seats()}
    for file in files:
        if file.stem not in labels:
            file.unlink()


def keep_own_metrics(metrics: Path, manifest: Manifest | None, seat: Seat, blocks: range) -> tuple[int, ...]:
    """Drops one process's records of steps after a checkpoint, while the others go on writing theirs; returns the epochs
    that have been evaluated."""
    path = metrics / f"stage{seat.label}.jsonl"
    steps = manifest.steps if manifest else dict.fromkeys(blocks, 0)
    records = salvage_lines(path, METRICS)
    with _reported(path):
        write_lines(path, [one for one in records if not isinstance(one, StepRecord) or one.step <= steps.get(one.block, 0)])
    return tuple(evaluation.epoch for evaluation in salvage_lines(metrics / "evaluations.jsonl", EVALUATIONS))


def forget_records(metrics: Path) -> None:
    """Removes the records of an attempt that left no checkpoint."""
    with _reported(metrics):
        for file in metrics.glob("*.jsonl"):
            file.unlink()


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        print(f"greedypipe: {path} keeps records of later steps: {reason_of(error)}", file=sys.stderr, flush=True)
