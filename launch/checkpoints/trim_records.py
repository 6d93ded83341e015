"""What a resumed run keeps of the records that it wrote before: those up to the checkpoint that it goes on from."""

import json
from pathlib import Path
from typing import Any

from greedypipe.launch.checkpoints.manifest import Manifest
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.placement import Seat


def keep_evaluations(metrics: Path, manifest: Manifest, plan: Plan) -> tuple[int, ...]:
    """Drops evaluations of later parameters; returns the epochs that are left."""
    path = metrics / "evaluations.jsonl"
    last = manifest.batch_id // plan.blueprint.steps_per_epoch
    kept = [record for record in _records(path) if record["epoch"] <= last]
    _write(path, kept)
    return tuple(record["epoch"] for record in kept)


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
    records = [record for file in files if file.stem.partition(".")[2] in ("", "0") for record in _records(file)]
    for file in files:
        file.unlink()
    for seat in plan.placement.seats():
        blocks = plan.placement.blocks_of(seat.stage) if seat.leads_stage else ()
        _write(
            metrics / f"stage{seat.label}.jsonl",
            [
                record
                for record in records
                if record.get("block") in blocks and record["step"] <= manifest.steps[record["block"]]
            ],
        )


def keep_own_metrics(metrics: Path, manifest: Manifest | None, seat: Seat, blocks: range) -> tuple[int, ...]:
    """Drops one process's records behind a checkpoint, while all others go on writing theirs; returns the epochs whose
    evaluation is known."""
    path = metrics / f"stage{seat.label}.jsonl"
    steps = manifest.steps if manifest else dict.fromkeys(blocks, 0)
    _write(path, [record for record in _records(path) if record.get("step", 0) <= steps.get(record.get("block"), 0)])
    return tuple(record["epoch"] for record in _records(metrics / "evaluations.jsonl"))


def forget_records(metrics: Path) -> None:
    """Removes what an attempt has written that left no checkpoint."""
    for file in metrics.glob("*.jsonl"):
        file.unlink()


def _records(path: Path) -> list[dict[str, Any]]:
    """Whole lines; a killed process can leave half of one."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
