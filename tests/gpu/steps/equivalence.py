"""Step 8b: the sequential reference, 2 processes and 4 processes leave the same bits on one GPU, over every transport."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.pipeline.execution.recorder import own_stream
from greedypipe.pipeline.reference import train
from greedypipe.workers.devices.current import compute_repeatably
from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import assert_equal, batches_of, blocks_of, device_of, placed, state_of, well
from tests.gpu.runs import run as run_whole

PLAIN: tuple[str, ...] = ()
OTHER = ("model.dropout=0.2", "optimizer.clip_norm=0.5", "optimizer.schedule=cosine", "method.name=predsim")
BF16 = ("training.precision=bf16",)
GRAPHS = (*OTHER, "training.graphs=on")
PIPELINES: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "gloo, 2 processes": (2, PLAIN, ("link.transport=gloo",)),
    "gloo, 4 processes": (4, PLAIN, ("link.transport=gloo",)),
    "ipc, 2 processes": (2, PLAIN, ("link.transport=ipc",)),
    "ipc, 4 processes": (4, PLAIN, ("link.transport=ipc",)),
    "dropout, clipping and a schedule, 4 processes": (4, OTHER, ()),
    "bf16, 2 processes": (2, BF16, ()),
    "graphs, 2 processes": (2, OTHER, ("training.graphs=on",)),
}
"""Processes, what the reference is run with too, and what only the pipeline is run with."""
PRETENDED = ("gloo, 2 processes",)


def run(found: Facts, setting: Setting) -> None:
    compute_repeatably()
    expected: dict[tuple[str, ...], dict[str, Tensor]] = {}

    def reference(overrides: tuple[str, ...]) -> dict[str, Tensor]:
        if overrides not in expected:
            expected[overrides] = _reference(setting, overrides)
        return expected[overrides]

    if not found.attempt("the reference again", lambda: assert_equal(reference(PLAIN), _reference(setting, PLAIN))):
        return
    if not setting.pretend:
        found.attempt("graphs, the reference", lambda: assert_equal(reference(OTHER), _reference(setting, GRAPHS)))
    for number, (name, (processes, overrides, own)) in enumerate(PIPELINES.items()):
        if not setting.pretend or name in PRETENDED:
            work = partial(_pipeline, setting, f"equivalence{number}", processes, [*overrides, *own])
            equal = found.attempt(name, lambda work=work, overrides=overrides: work(reference(overrides)))
            found.row("equivalence", run=name, equals_the_reference_bit_for_bit="yes" if equal else "no")


def _pipeline(
    setting: Setting, folder: str, processes: int, overrides: list[str], expected: dict[str, Tensor]
) -> dict[str, Any]:
    outcome = well(run_whole(placed(setting, *overrides), processes, setting, folder))
    assert_equal(expected, network_state(outcome.folder))
    transports = [report.link.transport for report in outcome.reports]
    return {"transports": transports}


def _reference(setting: Setting, overrides: tuple[str, ...]) -> dict[str, Tensor]:
    device = device_of(setting)
    plan, blocks = blocks_of(placed(setting, *overrides), device)
    with own_stream(device):
        train(blocks, batches_of(plan, device, plan.blueprint.total_steps))
        state = state_of(blocks)
    assert all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())
    if device.type == "cuda":
        torch.cuda.synchronize()
    return state
