"""Step 8a: no call of a training step waits for the device; torch raises where one does. What is uploaded as bytes becomes
what the CPU makes of it."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS, Batch
from greedypipe.workers.data.augment import normalise
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.devices.normalised import NormalisedBytes, on_device
from greedypipe.workers.devices.side import CudaSide, HostSide, Side
from greedypipe.workers.devices.uploads import SLOTS, Uploads
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.telemetry.meter import Meter
from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import assert_equal, batches_of, blocks_of, device_of, placed

CASES: Mapping[str, tuple[str, ...]] = {
    "cross_entropy": (),
    "predsim, clipped": ("method.name=predsim", "optimizer.clip_norm=0.5", "optimizer.schedule=cosine"),
    "reconstruction, adam": ("method.name=reconstruction", "optimizer.name=adam", "optimizer.lr=1e-3"),
    "dropout, bf16": ("model.dropout=0.2", "training.precision=bf16"),
    "overlap": ("method.name=overlap",),
}
WARM_UP, STEPS = 5, 50
MEANS, STDS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10."""


def run(found: Facts, setting: Setting) -> None:
    for name, overrides in CASES.items():
        found.attempt(f"{name}: no wait", partial(_steps, setting, overrides))
    found.attempt("bytes have the CPU's bits", partial(_levels, setting))
    found.attempt("batches of bytes", partial(_uploads, setting))


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


def _elsewhere(setting: Setting) -> tuple[torch.device, Side]:
    """The GPU; or, to pretend, what is another device to whoever compares."""
    if setting.pretend:
        return torch.device("cpu", 0), HostSide()
    device = device_of(setting)
    return device, CudaSide(device)


def _levels(setting: Setting) -> dict[str, Any]:
    """Every level of every channel; and how many would differ if the host's number were divided by."""
    device, side = _elsewhere(setting)
    levels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).repeat(1, 3, 2, 2)
    expected = normalise(levels, MEANS, STDS)
    there = levels.to(device)
    info = DataInfo((3, 2, 2), ("one", "other"), 256, 256, MEANS, STDS)
    assert_equal(
        {"samples": expected}, {"samples": NormalisedBytes(info, device, side)({ACTIVATION: there})[ACTIVATION].cpu()}
    )
    plain = there.float().div_(255.0).cpu()
    return {"levels that a number changes": int((plain != levels.float().div_(255.0))[:, 0, 0, 0].sum())}


def _uploads(setting: Setting) -> dict[str, Any]:
    """Batches of a data set, while the stage has something else to do."""
    device, side = _elsewhere(setting)
    plan, _ = blocks_of(placed(setting, "data.drop_last=true", "data.augment=crop_flip"), torch.device("cpu"))
    normalising = on_device(plan.config.data, plan.data, device, side)
    uploads = Uploads(device, side, normalising.arrived)
    plain, late = (BatchSource(plan.config.data, 0, plan.data, each) for each in (None, normalising.prepare))
    busy, seen = torch.ones(512, 512, device=device), {}

    def step(number: int) -> None:
        batch = late.training_batch(number)
        sent = {LABELS: batch.labels, ACTIVATION: batch.images, IMAGE: batch.images}
        tensors = uploads.moved(Message(Kind.TRAIN, number, tensors=sent)).tensors
        for _ in range(20):
            busy.matmul(busy)
        seen[f"batch {number}"] = tensors[IMAGE] + 0
        uploads.done()

    for number in range(SLOTS):
        step(number)
    with _no_waits(device):
        for number in range(SLOTS, 5 * SLOTS):
            step(number)
    expected = {f"batch {number}": plain.training_batch(number).images for number in range(5 * SLOTS)}
    assert_equal(expected, {name: images.cpu() for name, images in seen.items()})
    return {"batches": len(seen), "sent": str(late.training_batch(0).images.dtype)}


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
