"""No turn of any method reads a number back: on a GPU it would wait there for everything before it."""

from collections import deque
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.feedback import NOTHING
from greedypipe.pipeline.methods import METHODS
from greedypipe.pipeline.order import Act, turn_order
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.telemetry.meter import Meter
from tests.unit.tiny import CPU
from tests.wanted import WANTED

READS = {
    torch.ops.aten._local_scalar_dense.default,  # item, tolist of one, float, bool
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,  # as many rows as there are
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
}
TURNS = 2
CASES = {name: (f"method.name={name}", *WANTED.get(name, ())) for name in METHODS}
CASES |= {
    "clipped, with a schedule": ("optimizer.clip_norm=0.5", "optimizer.schedule=cosine"),
    "adam, bf16": ("optimizer.name=adam", "training.precision=bf16", "model.dropout=0.2"),
}


class NoReads(TorchDispatchMode):
    """Raises where a number is read from a tensor."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        assert function not in READS, f"{function} reads from the device"
        return function(*arguments, **(keywords or {}))


@pytest.fixture(autouse=True)
def _one_hot_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch looks at the labels on the CPU alone, to refuse those that are none."""

    def one_hot(labels: Tensor, classes: int) -> Tensor:
        return (labels[..., None] == torch.arange(classes)).long()

    monkeypatch.setattr(functional, "one_hot", one_hot)


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_a_turn_reads_nothing(overrides: tuple[str, ...]) -> None:
    network = () if any(one.startswith("model.name=") for one in overrides) else ("model.name=vgg8b", "model.width=0.1")
    given = ["data.name=digits", "data.batch_size=8", "partition.blocks=2", *network, *overrides]
    plan = make_plan(load_config(None, given), 1)
    blocks = [plan.blueprint.build_block(index, CPU) for index in range(2)]
    meters = [Meter(block, TURNS + 1) for block in blocks]
    lines = [deque(after.line) for after in blocks[1:]]
    source = BatchSource(plan.config.data, 0)
    for turn in range(TURNS):
        loaded = source.training_batch(turn)
        x, batch = loaded.images, Batch(turn, loaded.labels, {IMAGE: loaded.images, **loaded.extras})
        with NoReads():
            for act, position in turn_order([block.timing for block in blocks]):
                block = blocks[position]
                if act is Act.FORWARD:
                    x = block.forward(x, batch)
                    continue
                loss, back = block.learn(lines[position].popleft() if block.timing.reads else NOTHING)
                if block.timing.sends:
                    lines[position - 1].append(back)
                if loss is not None:
                    meters[position].record(loss, turn)


def test_a_number_that_is_read_is_noticed() -> None:
    with NoReads(), pytest.raises(AssertionError, match="reads from the device"):
        torch.ones(3).sum().item()
