"""The figures of a finished run: what each stage reports, and what follows from all of them."""

import json
import os
import platform
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.block import Block
from workers.stage import StageWorker


@dataclass(frozen=True)
class StageReport:
    """One stage of `summary.json`. Times are of training batches alone; see workers.meter.Stopwatch.

    Attributes:
        link: workers.links.interface.LinkStats of the link to the next stage.
        slot_bytes: Memory of the slots that this stage has allocated. Slots in shared memory are the receiver's, but
            the sender's process maps them too, and its `peak_memory_bytes` counts them.
    """

    stage: int
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
    link: dict[str, Any]
    slot_bytes: int


def report_stage(stage: int, blocks: list[Block], worker: StageWorker) -> StageReport:
    """Collects the report of the calling process's stage."""
    watch, stats, link = worker.watch, worker.inbox.stats(), worker.outbox.stats
    return StageReport(
        stage=stage,
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
        peak_memory_bytes=_peak_memory_bytes(blocks[0].device),
        threads=torch.get_num_threads(),
        staleness_mean=stats.staleness_mean,
        staleness_max=stats.staleness_max,
        reuse_mean=stats.reuse_mean,
        occupancy_mean=stats.occupancy_mean,
        dropped=stats.dropped,
        link=asdict(link),
        slot_bytes=worker.inbox.slot_bytes + link.slot_bytes,
    )


def summarise(reports: list[dict[str, Any]], evaluations: list[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    """Everything that `summary.json` holds.

    Args:
        reports: `StageReport`s as dictionaries, in the order of stages.
        evaluations: `epoch`, `blocks` (accuracies in the network's order) and `ensemble`, in the order of epochs.
        wall_s: Seconds of the whole run.
    """
    slowest = max(reports, key=lambda report: report["step_time_s"] / max(report["samples"], 1) * report["batches"])
    bound = slowest["samples"] / (slowest["step_time_s"] * slowest["batches"]) if slowest["step_time_s"] else 0.0
    measured = reports[-1]["samples_per_s"]
    last = evaluations[-1]
    return {
        "status": "finished",
        "accuracy": {"blocks": last["blocks"], "final": last["blocks"][-1], "ensemble": last["ensemble"]},
        "samples_per_s": measured,
        "bound_samples_per_s": bound,
        "efficiency": measured / bound if bound else 0.0,
        "wall_s": wall_s,
        "train_s": max(report["train_s"] for report in reports),
        "stages": reports,
        "evaluations": evaluations,
        "versions": versions(),
        "hardware": hardware(),
    }


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json` aside and renames it."""
    aside = folder / "summary.json.partial"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    aside.replace(folder / "summary.json")


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def hardware() -> dict[str, Any]:
    """Processor, cores and GPUs of this host."""
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpus": gpus}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Most memory that the calling process has had at once, shared pages included.

    Not getrusage's: that keeps the peak of whichever program the process was before it became this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
