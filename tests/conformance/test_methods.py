"""Every method and every head of the tables, and those of examples/, keeps what the engine relies on."""

import functools
import io
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline import reference
from greedypipe.pipeline.batch import ACTIVATION, IMAGE, LABELS, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import NOTHING, Reach
from greedypipe.pipeline.heads import HEADS
from greedypipe.pipeline.method import Sample, Turn
from greedypipe.pipeline.methods import METHODS
from greedypipe.pipeline.order import Act, turn_order
from greedypipe.pipeline.trunk import tapped
from greedypipe.workers.data.source import BatchSource
from tests.unit.tiny import CPU, differing, learned
from tests.wanted import TWO_VIEWS, WANTED

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = ("data.name=digits", "data.batch_size=32", "model.name=vgg8b", "model.width=0.1", "optimizer.lr=0.05")
FOUR = (*TINY, "partition.blocks=4", "model.dropout=0.2")
"""Four blocks with dropout and batch normalisation."""
OF_ITS_OWN = {
    **{f"method.name={name}": wanted for name, wanted in WANTED.items()},
    "method.name=overlap method.local.name=simclr": TWO_VIEWS,
    "head.name=private_layers": ("model.name=tests.unit.own_objects:transformer",),
}
"""Network and data of variants that cannot do with those of `FOUR`."""
ON_SIGNALS = "model.name=tests.unit.own_objects:of_signals"
STEPS = 4
OVERLAP = [f"method.name=overlap method.local.name={name}" for name in ("reconstruction", "simclr", "own_method:Focal")]
"""Over losses that need more than labels, or two views, and over a user's own."""
METHOD_NAMES = [*(f"method.name={name}" for name in (*METHODS, "own_method:Focal")), *OVERLAP]
HEAD_NAMES = [f"head.name={name}" for name in (*HEADS, "own_head:conv_head")]

every_method = pytest.mark.parametrize("variant", METHOD_NAMES)
WITH_FEEDBACK = [f"method.name={name}" for name, one in METHODS.items() if one.reach is not Reach.NONE] + OVERLAP
LOCAL = [name for name in METHOD_NAMES if name not in WITH_FEEDBACK]
every_local_method = pytest.mark.parametrize("variant", LOCAL)
every_local_variant = pytest.mark.parametrize("variant", [*LOCAL, *HEAD_NAMES, ON_SIGNALS])
every_variant = pytest.mark.parametrize("variant", [*METHOD_NAMES, *HEAD_NAMES])
Message = dict[str, Tensor]
Loaded = tuple[Tensor, Tensor, dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("own_method", "own_head"):
        monkeypatch.syspath_prepend(EXAMPLES / name)


def plan_of(variant: str, processes: int = 1, overrides: Sequence[str] = FOUR) -> Plan:
    return make_plan(load_config(None, [*_network_of(variant, overrides), *variant.split()]), processes)


def _network_of(variant: str, overrides: Sequence[str]) -> list[str]:
    own = (variant,) if variant == ON_SIGNALS else OF_ITS_OWN.get(variant, ())
    changed = {one.split("=")[0] for one in own}
    of_a_network = next((one for one in own if one.startswith("model.name=")), "")
    # Networks of one's own take no other keys.
    idle = "model." if ":" in of_a_network else "model.width" if of_a_network else "nothing"
    return [*(one for one in overrides if one.split("=")[0] not in changed and not one.startswith(idle)), *own]


def blocks_of(plan: Plan, stage: int = 0) -> list[Block]:
    return [plan.blueprint.build_block(index, CPU) for index in plan.placement.blocks_of(stage)]


def batches(variant: str) -> list[Loaded]:
    return _batches(*(one for one in _network_of(variant, FOUR) if one.startswith("data.")))


@functools.cache
def _batches(*overrides: str) -> list[Loaded]:
    config = load_config(None, overrides)
    source = BatchSource(config.data, config.training.seed)
    return [(batch.images, batch.labels, dict(batch.extras)) for batch in map(source.training_batch, range(STEPS))]


@functools.cache
def referred(variant: str) -> tuple[list[list[float]], dict[str, Tensor]]:
    """Losses, and all that has been learned, of the sequential reference."""
    blocks = blocks_of(plan_of(variant))
    return reference.train(blocks, batches(variant)), learned(blocks)


def hosted(plan: Plan, stage: int, messages: list[Message]) -> tuple[list[Block], list[list[float]], list[Message]]:
    """What a process does with all messages: its blocks, their losses, and what it sends, which is what the plan says."""
    blocks, losses, sent = blocks_of(plan, stage), [], []
    for batch_id, message in enumerate(messages):
        torch.manual_seed(1000 * stage + batch_id)  # another process is in another state
        extras = {name: tensor for name, tensor in message.items() if name not in (ACTIVATION, LABELS)}
        batch, x, row = Batch(batch_id, message[LABELS], extras), message[ACTIVATION], []
        for block in blocks:
            x = block.forward(x, batch).clone()
            loss, _ = block.learn()
            assert loss is not None
            row.append(float(loss))
        losses.append(row)
        sent.append({ACTIVATION: x, **{name: message[name].clone() for name in plan.carried_after(stage)}})
    return blocks, losses, sent


def hosted_in_step(variant: str, plans: Sequence[Plan]) -> tuple[list[Block], list[list[float]]]:
    """What processes do that take turns, each with a network of its own: all blocks, and their losses.

    Between two processes feedback takes a turn at least, so that one of them after the other can do each batch.
    """
    stages = [blocks_of(plan, stage) for stage, plan in enumerate(plans)]
    blocks = [block for stage in stages for block in stage]
    lines = [deque(after.line) for after in blocks[1:]]
    rows: list[list[float]] = []

    def learn(block: Block, *, drains: bool = False) -> Tensor | None:
        loss, back = block.learn(lines[block.index].popleft() if block.timing.reads else NOTHING, drains=drains)
        if block.timing.sends and (block.relays or not drains):
            lines[block.index - 1].append({name: tensor.clone() for name, tensor in back.items()})
        return loss

    for batch_id, (images, labels, extras) in enumerate(batches(variant)):
        x, found = images, {}
        for number, stage in enumerate(stages):
            torch.manual_seed(1000 * number + batch_id)
            for act, position in turn_order([block.timing for block in stage]):
                block = stage[position]
                if act is Act.FORWARD:
                    x = block.forward(x, Batch(batch_id, labels, {IMAGE: images, **extras})).clone()
                else:
                    found[block.index] = learn(block)
        rows.append([float(loss) for index in range(len(blocks)) if (loss := found[index]) is not None])
    for block in reversed(blocks):
        for _ in range(block.drain_turns):
            learn(block, drains=True)
    return blocks, rows


@pytest.mark.parametrize(
    ("processes", "delay"), [(1, "0"), (1, "[2,0,1]"), (2, "1"), (2, "[0,2,0]"), (4, "1"), (4, "[2,1,3]")]
)
@pytest.mark.parametrize("variant", WITH_FEEDBACK)
def test_feedback_between_processes_equals_the_sequential_reference(variant: str, processes: int, delay: str) -> None:
    overrides = (*FOUR, "auxiliary.name=adam", "auxiliary.lr=1e-3", f"feedback.delay={delay}")
    plans = [plan_of(variant, processes, overrides) for _ in range(processes)]
    blocks, rows = hosted_in_step(variant, plans)
    expected = blocks_of(plan_of(variant, overrides=overrides))
    assert rows == reference.train(expected, batches(variant))
    assert not differing(learned(blocks), learned(expected))


@pytest.mark.parametrize("processes", [1, 2, 4])
@every_local_variant
def test_any_hosting_equals_the_sequential_reference(variant: str, processes: int) -> None:
    """Each process draws the network for itself, and runs ahead of the next one by the whole stream."""
    messages = [{ACTIVATION: images, IMAGE: images, LABELS: labels, **extras} for images, labels, extras in batches(variant)]
    blocks, rows = [], [list[float]() for _ in messages]
    for stage in range(processes):
        here, losses, messages = hosted(plan_of(variant, processes), stage, messages)
        blocks += here
        rows = [row + more for row, more in zip(rows, losses, strict=True)]
    losses, state = referred(variant)
    assert rows == losses
    assert not differing(learned(blocks), state)


@every_variant
def test_a_saved_run_goes_on_bit_for_bit(variant: str) -> None:
    begun, resumed = blocks_of(plan_of(variant)), blocks_of(plan_of(variant))
    losses = reference.train(begun, batches(variant)[:2], stream_ends=False)
    reference.train(resumed, batches(variant)[2:3])
    for before, after in zip(begun, resumed, strict=True):
        file = io.BytesIO()
        torch.save(before.state_dict(), file)
        file.seek(0)
        after.load_state_dict(torch.load(file, weights_only=True))
    losses += reference.train(resumed, batches(variant)[2:])
    expected, state = referred(variant)
    assert losses == expected
    assert not differing(learned(resumed), state)


def laid_out(x: Tensor) -> Tensor:
    """Maps with channels last, all else row by row: sums depend on the order in memory."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


def back_propagated(network: nn.Sequential, variant: str) -> Iterator[float]:
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    for images, labels, _ in batches(variant):
        optimizer.zero_grad()
        h = network[:-1](laid_out(images))
        loss = functional.cross_entropy(network[-1](laid_out(h)), labels)
        loss.backward()
        optimizer.step()
        yield loss.item()


@every_method
def test_one_block_is_back_propagation_whatever_the_method(variant: str) -> None:
    one = (*TINY, "partition.blocks=1")
    drawn = plan_of(variant, overrides=one).blueprint.network
    network = nn.Sequential(*(layer.module for layer in (*drawn.layers, drawn.classifier)))
    expected = [[loss] for loss in back_propagated(network.to(memory_format=torch.channels_last), variant)]
    (block,) = blocks_of(plan_of(variant, overrides=one))
    # A mean of the losses of the rows may differ in its last bit, and no gradient with it.
    assert reference.train([block], batches(variant)) == [[pytest.approx(loss, rel=1e-6)] for (loss,) in expected]
    assert not differing(block.layer_state(), drawn.state_dict())


def sample_of(plan: Plan, block: Block) -> Sample:
    """The activation of noise with its graph, and no more of the rest than the method says it needs."""
    x = block.precision.canonical(torch.randn(6, *block.shapes.input))
    with torch.set_grad_enabled(block.method.trains_layers), tapped(block.method.taps()) as inner:
        h = nn.Sequential(*(layer.module for layer in block.layers))(x)
    task, needs = plan.blueprint.task, plan.blueprint.needs(block.index)
    specs = [spec for spec in (task.input, *task.extras) if spec.name in needs]
    needed = {spec.name: torch.randint(0, 2, (6, *spec.shape)).to(spec.dtype) for spec in specs}
    return Sample(torch.arange(6) % 4, needed, input=x, output=h, inner=tuple(inner))


@pytest.mark.parametrize("index", [0, 2])
@every_local_method
def test_learning_adds_gradients_and_steps_nothing(variant: str, index: int) -> None:
    plan = plan_of(variant)
    block = blocks_of(plan)[index]
    sample, before = sample_of(plan, block), {name: value.clone() for name, value in block.method.named_parameters()}
    layers = {layer.qualified(name): one for layer in block.layers for name, one in layer.module.named_parameters()}
    before |= {name: value.clone() for name, value in layers.items()}
    loss = block.method.learn(Turn(0, sample))
    assert loss is not None
    assert (loss.shape, loss.dtype, loss.requires_grad) == ((), torch.float32, False) and loss.isfinite()
    assert sample.x.grad is None and not sample.x.requires_grad
    own = dict(block.method.named_parameters())
    assert not differing(before, own | layers)
    assert [name for name, one in own.items() if one.grad is None] == []
    assert {one.grad is not None for one in layers.values()} == {block.method.trains_layers}


@every_variant
def test_every_block_answers_in_evaluation_mode_without_a_trace(variant: str) -> None:
    for block in blocks_of(plan_of(variant)):
        before = learned([block])
        activation, outputs = block.predict(torch.randn(5, *block.shapes.input))
        assert activation.shape == (5, *block.shapes.output)
        assert (outputs.shape, outputs.dtype) == ((5, 10), torch.float32) and outputs.isfinite().all()
        assert not differing(learned([block]), before)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_one_file_of_its_name_that_says_what_travels(name: str) -> None:
    method = METHODS[name]
    assert method.__module__ == f"greedypipe.pipeline.methods.{name}"
    assert method.Config().name == name and method.__doc__ and method.Config.__doc__
