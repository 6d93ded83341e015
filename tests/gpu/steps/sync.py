"""Step 8a: no call of a training step waits for the device; torch raises where one does."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.workers.telemetry.meter import Meter
from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import batches_of, blocks_of, device_of, placed

CASES: Mapping[str, tuple[str, ...]] = {
    "cross_entropy": (),
    "predsim, clipped": ("method.name=predsim", "optimizer.clip_norm=0.5", "optimizer.schedule=cosine"),
    "reconstruction, adam": ("method.name=reconstruction", "optimizer.name=adam", "optimizer.lr=1e-3"),
    "dropout, bf16": ("model.dropout=0.2", "training.precision=bf16"),
    "overlap": ("method.name=overlap",),
}
WARM_UP, STEPS = 5, 50


def run(found: Facts, setting: Setting) -> None:
    for name, overrides in CASES.items():
        found.attempt(f"{name}: no wait", partial(_steps, setting, overrides))


def _steps(setting: Setting, overrides: tuple[str, ...]) -> dict[str, Any]:
    device, steps = device_of(setting), 2 if setting.pretend else STEPS
    plan, blocks = blocks_of(placed(setting, "data.drop_last=true", "training.epochs=100", *overrides), device)
    batches = batches_of(plan, device, 2)
    meters = [Meter(block, steps + WARM_UP + 1) for block in blocks]
    for step in range(WARM_UP):
        _turn(plan, blocks, meters, batches, step)
    with _no_waits(device):
        for step in range(WARM_UP, WARM_UP + steps):
            _turn(plan, blocks, meters, batches, step)
    losses = [mean.loss for meter in meters if (mean := meter.read())]
    return {"steps": steps, "losses": losses}


def _turn(plan: Any, blocks: Any, meters: Any, batches: Any, step: int) -> None:
    """Each block alone: what comes back is zeros."""
    x, labels = batches[step % len(batches)]
    batch = Batch(step, labels, {IMAGE: x})
    for block, meter in zip(blocks, meters, strict=True):
        x = block.forward(x, batch)
        loss, _ = block.learn(plan.blueprint.zero_feedback(block.index, len(labels), x.device))
        if loss is not None:
            meter.record(loss, step)


@contextlib.contextmanager
def _no_waits(device: torch.device) -> Iterator[None]:
    if device.type == "cpu":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
