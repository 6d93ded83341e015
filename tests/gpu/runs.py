"""Whole runs for the steps, on GPU 0 or, to pretend, on the CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.block import Block
from greedypipe.workers.data.source import BatchSource
from tests.gpu.facts import Setting

SHORT = (
    "data.name=digits",
    "data.batch_size=128",
    "training.epochs=1",
    "optimizer.lr=0.05",
    "faults.timeout_s=30",
    "model.name=vgg8b",
    "model.width=0.1",
    "partition.blocks=4",
)
"""Twelve steps, the last of fewer samples, and an evaluation."""
RUN_S = 50.0


def device_of(setting: Setting) -> torch.device:
    """Where blocks of this process live."""
    return torch.device("cpu") if setting.pretend else torch.device("cuda", 0)


def placed(setting: Setting, *overrides: str) -> list[str]:
    """The overrides of a short run, there; on a GPU its stages compute repeatably."""
    on_gpu = () if setting.pretend else ("training.deterministic=true",)
    return [*SHORT, f"placement.device={device_of(setting).type}", *on_gpu, *overrides]


def run(overrides: Sequence[str], processes: int, setting: Setting, name: str, *, goes_on: bool = False) -> Outcome:
    """A whole run in the folder `name`; whatever its end."""
    return local_run.run_pipeline(overrides, processes, setting.scratch / name, RUN_S, goes_on=goes_on)


def well(outcome: Outcome) -> Outcome:
    """The run, which has ended well.

    Raises:
        AssertionError: It has not; with what it printed.
    """
    assert set(outcome.exit_codes) == {0}, f"{outcome.exit_codes}: {outcome.printed}"
    return outcome


def blocks_of(overrides: Sequence[str], device: torch.device) -> tuple[Plan, list[Block]]:
    """All blocks of a run, in this process, which computes with as many threads as the run's own do from here on."""
    plan = make_plan(load_config(None, list(overrides)), 1)
    torch.set_num_threads(plan.config.placement.threads)
    return plan, [plan.blueprint.build_block(index, device) for index in range(plan.blueprint.num_blocks)]


def batches_of(plan: Plan, device: torch.device, count: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels of the first training batches, there."""
    source = BatchSource(plan.config.data, plan.config.training.seed)
    found = (source.training_batch(batch_id) for batch_id in range(count))
    return [(batch.images.to(device), batch.labels.to(device)) for batch in found]


def state_of(blocks: Sequence[Block]) -> dict[str, Tensor]:
    """Parameters and statistics of the whole network, on the CPU."""
    return {name: value.detach().cpu() for block in blocks for name, value in block.layer_state().items()}


def assert_equal(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Equal bit for bit; otherwise it says where, and how far from each other."""
    assert expected.keys() == found.keys()
    different = {
        name: float((value.double() - found[name].double()).abs().max())
        for name, value in expected.items()
        if not torch.equal(value, found[name])
    }
    assert not different, f"{len(different)} of {len(expected)} tensors differ, at most by: {different}"
