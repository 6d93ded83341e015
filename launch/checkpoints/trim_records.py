"""What a resumed run keeps of the records that it wrote before: those up to the checkpoint that it goes on from."""

from pathlib import Path

from greedypipe.launch.checkpoints.manifest import Manifest
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.jsonl import read_lines, write_lines
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.results import EVALUATIONS, METRICS, StepRecord


def keep_evaluations(metrics: Path, manifest: Manifest, plan: Plan) -> tuple[int, ...]:
    """Drops evaluations of later parameters; returns the epochs that are left."""
    path = metrics / "evaluations.jsonl"
    last = manifest.batch_id // plan.blueprint.steps_per_epoch
    kept = [evaluation for evaluation in read_lines(path, EVALUATIONS) if evaluation.epoch <= last]
    write_lines(path, kept)
    return tuple(evaluation.epoch for evaluation in kept)


def keep_metrics(metrics: Path, manifest: Manifest, plan: Plan) -> None:
    """Drops records of later steps, and gives each block's records to the stage that hosts it now, to its first replica.

    With another cut they are of other blocks: then all of them are put aside.
    """
    files = sorted(metrics.glob("stage*.jsonl"))
    partition = manifest.config["partition"]
    now = plan.config.partition.model_dump(mode="json")
    if (partition["blocks"], partition["boundaries"]) != (now["blocks"], now["boundaries"]) and now["boundaries"] != "auto":
        for file in files:
            file.replace(file.with_suffix(f".before-{manifest.batch_id}"))
        return
    # Replicas of a stage record the same steps: those of the first one are kept.
    firsts = [file for file in files if file.stem.partition(".")[2] in ("", "0")]
    records = [record for file in firsts for record in read_lines(file, METRICS) if isinstance(record, StepRecord)]
    for file in files:
        file.unlink()
    for seat in plan.placement.seats():
        blocks = plan.placement.blocks_of(seat.stage) if seat.leads_stage else ()
        kept = [one for one in records if one.block in blocks and one.step <= manifest.steps[one.block]]
        write_lines(metrics / f"stage{seat.label}.jsonl", kept)


def keep_own_metrics(metrics: Path, manifest: Manifest | None, seat: Seat, blocks: range) -> tuple[int, ...]:
    """Drops one process's records behind a checkpoint, while all others go on writing theirs; returns the epochs whose
    evaluation is known."""
    path = metrics / f"stage{seat.label}.jsonl"
    steps = manifest.steps if manifest else dict.fromkeys(blocks, 0)
    records = read_lines(path, METRICS)
    write_lines(path, [one for one in records if not isinstance(one, StepRecord) or one.step <= steps.get(one.block, 0)])
    return tuple(evaluation.epoch for evaluation in read_lines(metrics / "evaluations.jsonl", EVALUATIONS))


def forget_records(metrics: Path) -> None:
    """Removes what an attempt has written that left no checkpoint."""
    for file in metrics.glob("*.jsonl"):
        file.unlink()
