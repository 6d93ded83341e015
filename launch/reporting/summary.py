"""The figures of a finished run: what each stage reports, and what follows from all of them."""

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from greedypipe.pipeline.block import Block
from greedypipe.workers.inbox import MessageStream
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.memory import peak_memory_bytes
from greedypipe.workers.telemetry.machine import hardware, versions
from greedypipe.workers.telemetry.meter import Stopwatch
from greedypipe.workers.telemetry.status import StageStatus

FINISHED, STOPPED = "finished", "stopped"


@dataclass(frozen=True)
class StageReport:
    """One process of a stage in `summary.json`. Times are of training batches alone; see workers.telemetry.meter.Stopwatch.

    Attributes:
        label: The stage's number; with several replicas theirs too, "2.0".
        restarts: How often its process was started again alone; the other figures are of the time since.
        began_unix_s: When its process began.
        samples: Rows that this process has trained on.
        peak_memory_bytes: See workers.memory; slots in shared memory count at both ends of their link.
        save_stalled_s: What checkpoints have kept it from training.
        slot_bytes: Memory of the slots of this stage's links that this stage has made, part of its peak.
        link: What it has sent, evaluation included: transport, messages, sent_bytes, send_s, wait_room_s.
        staleness_counts: Reads by staleness 0, 1, 2 and so on, as far as there were any; the entry at
            buffers.stats.STALENESS_LIMIT counts that much and more.
    """

    stage: int
    replica: int
    label: str
    restarts: int
    began_unix_s: float
    blocks: list[int]
    parameters: int
    head_parameters: int
    batches: int
    samples: int
    step_time_s: float
    samples_per_s: float
    busy_fraction: float
    wait_input_fraction: float
    wait_output_fraction: float
    train_s: float
    hand_on_s: float
    evaluate_s: float
    peak_memory_bytes: int
    threads: int
    staleness_mean: float
    staleness_max: int
    reuse_mean: float
    occupancy_mean: float
    dropped: int
    staleness_counts: list[int]
    slot_bytes: int
    save_stalled_s: float
    link: dict[str, Any]


def report_stage(
    status: StageStatus, blocks: list[Block], watch: Stopwatch, inbox: MessageStream, outbox: Sender, save_stalled_s: float
) -> StageReport:
    """Collects the report of the calling process."""
    stats, link, seat = inbox.stats(), asdict(outbox.stats), status.seat
    return StageReport(
        stage=seat.stage,
        replica=seat.replica,
        label=seat.label,
        restarts=status.incarnation,
        began_unix_s=status.began_unix_s,
        blocks=[block.index for block in blocks],
        parameters=sum(block.num_parameters for block in blocks),
        head_parameters=sum(block.num_head_parameters for block in blocks),
        batches=watch.batches,
        samples=watch.samples,
        step_time_s=watch.step_time_s,
        samples_per_s=watch.samples_per_s,
        busy_fraction=watch.fraction(watch.busy_s),
        wait_input_fraction=watch.fraction(watch.wait_input_s),
        wait_output_fraction=watch.fraction(watch.wait_output_s),
        train_s=watch.train_s,
        hand_on_s=watch.hand_on_s,
        evaluate_s=watch.evaluate_s,
        peak_memory_bytes=peak_memory_bytes(blocks[0].device),
        threads=torch.get_num_threads(),
        staleness_mean=stats.staleness_mean,
        staleness_max=stats.staleness_max,
        reuse_mean=stats.reuse_mean,
        occupancy_mean=stats.occupancy_mean,
        dropped=stats.dropped,
        staleness_counts=stats.staleness_counts[: stats.staleness_max + 1] if stats.reads else [],
        slot_bytes=inbox.slot_bytes + link.pop("slot_bytes"),
        save_stalled_s=save_stalled_s,
        link=link,
    )


def summarise(
    reports: list[dict[str, Any]],
    evaluations: list[dict[str, Any]],
    wall_s: float,
    *,
    is_finished: bool,
    predicted: dict[str, Any],
    checkpoints: dict[str, int],
    began_at: int,
) -> dict[str, Any]:
    """Everything that `summary.json` holds.

    Args:
        reports: `StageReport`s as dictionaries, in the order of ranks.
        evaluations: `epoch`, `blocks` (accuracies in the network's order) and `ensemble`, in the order of epochs.
        wall_s: Seconds of the whole run; of a resumed one, since it went on.
        is_finished: Not told to stop before its end.
        predicted: What was foretold of the run (launch.planning.auto_cut.Forecast); empty where nothing was.
        checkpoints: How many were complete and incomplete.
        began_at: The first training batch; above 0 in a run that went on from a checkpoint.
    """
    rates = [_own_samples_per_s(stage) for stage in _by_stage(reports)]
    bound = min((rate for rate in rates if rate), default=0.0)
    # A stage alone may be ahead of the others for a while: what counts is when all have trained on all.
    train_s = max(report["train_s"] for report in reports)
    measured = sum(report["samples"] for report in _by_stage(reports)[-1]) / train_s if train_s else 0.0
    last = evaluations[-1] if evaluations else None
    accuracy = last and {"blocks": last["blocks"], "final": last["blocks"][-1], "ensemble": last["ensemble"]}
    return {
        "status": FINISHED if is_finished else STOPPED,
        "accuracy": accuracy,
        "began_at_batch_id": began_at,
        "checkpoints": checkpoints,
        "samples_per_s": measured,
        "bound_samples_per_s": bound,
        "efficiency": measured / bound if bound else 0.0,
        **({"predicted": predicted} if predicted else {}),
        "wall_s": wall_s,
        "train_s": train_s,
        "stages": reports,
        "evaluations": evaluations,
        "versions": versions(),
        "hardware": hardware(),
    }


def _by_stage(reports: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [list(group) for _, group in itertools.groupby(reports, key=lambda report: report["stage"])]


def _own_samples_per_s(replicas: list[dict[str, Any]]) -> float:
    """What a stage's own time allows: its replicas together, as fast as the slowest of them; 0 where it has not trained."""
    slowest_s = max(report["step_time_s"] * report["batches"] for report in replicas)
    return sum(report["samples"] for report in replicas) / slowest_s if slowest_s else 0.0


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json` aside and renames it."""
    aside = folder / "summary.json.partial"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    aside.replace(folder / "summary.json")
