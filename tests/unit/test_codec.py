"""Vector-quantised outputs: what comes out, what travels, what is saved, and that hosting changes no bit."""

import io

import pytest
import torch
from torch import Tensor

from greedypipe.launch.checkpoints.trained_blocks import plain_network
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.batch import ACTIVATION, LABELS, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.codecs.vq import BOOK, CODES, VectorForm, VectorQuantiser
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.reference import train
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.links.slots import new_slot
from tests.unit.tiny import differing

CPU = torch.device("cpu")
TINY = ("data.name=digits", "data.batch_size=32", "model.name=vgg8b", "model.width=0.1", "optimizer.lr=0.05")
SHAPES = [(8, 4, 3), (5, 8), (8,)]


def quantiser(
    shape: tuple[int, ...], codes: int, groups: int = 1, decay: float = 0.9, bf16: bool = False
) -> VectorQuantiser:
    precision = Precision("bf16" if bf16 else "fp32", True)
    return VectorQuantiser(VectorForm(codes, groups, shape, precision), decay, (0, 0), CPU)


def outputs(shape: tuple[int, ...], rows: int = 6, seed: int = 0) -> Tensor:
    made = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(seed))
    return Precision("fp32", True).canonical(made)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_enough_codes_give_a_batch_out_exactly(shape: tuple[int, ...], groups: int, bf16: bool) -> None:
    h = outputs(shape).to(torch.bfloat16 if bf16 else torch.float32)
    given = quantiser(shape, 80, groups, bf16=bf16).give_out(h, learns=True)
    assert torch.equal(given, h) and given.dtype == h.dtype and given.stride() == h.stride()


@pytest.mark.parametrize("groups", [1, 2])
def test_every_position_gets_the_nearest_vector_and_the_first_of_several(groups: int) -> None:
    codec, h = quantiser((8, 4, 3), 5, groups), outputs((8, 4, 3))
    codec.give_out(outputs((8, 4, 3), seed=1), learns=True)
    given = codec.give_out(h)
    book = codec.packed[BOOK][0]
    for part in range(groups):
        channels = slice(part * 8 // groups, (part + 1) * 8 // groups)
        for row, down, across in ((0, 0, 0), (3, 2, 1), (5, 3, 2)):
            vector = h[row, channels, down, across]
            distances = [float(((vector - one) ** 2).sum()) for one in book[part]]
            assert torch.equal(given[row, channels, down, across], book[part][distances.index(min(distances))])
    same = quantiser((8,), 4)
    same.give_out(torch.zeros(3, 8), learns=True)
    assert not same.packed[CODES].any()


def test_the_codebook_follows_by_averages_and_only_where_it_learns() -> None:
    codec, first, second = quantiser((4,), 2, decay=0.75), outputs((4,), 2), outputs((4,), 8, seed=1)
    codec.give_out(first, learns=True)
    codec.give_out(second, learns=True)
    # Of the first batch each vector chooses itself, so that the averages stay.
    chosen = codec.packed[CODES][:, 0, 0].long()
    number = torch.tensor([(chosen == code).sum() for code in range(2)])
    total = torch.stack([second[chosen == code].sum(0) for code in range(2)])
    counts, sums = 0.75 + 0.25 * number, 0.75 * first + 0.25 * total
    smoothed = (counts + 1e-5) / (counts.sum() + 2e-5) * counts.sum()
    book = codec.state_dict()["book"]
    torch.testing.assert_close(book[0], sums / smoothed[:, None], rtol=1e-4, atol=1e-5)
    codec.give_out(first)
    assert torch.equal(codec.state_dict()["book"], book)


def test_vectors_that_nobody_chooses_begin_anew() -> None:
    """Outputs move away from all vectors but one, as those of a network do that begins to learn."""
    corners = torch.tensor([[3.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3]]).repeat_interleave(8, 0)
    codec, again = (quantiser((4,), 4) for _ in range(2))
    codec.give_out(outputs((4,), 32) + 100, learns=True)
    codec.give_out(corners, learns=True)
    assert len(codec.packed[CODES].unique()) == 1
    for turn in range(40):
        noisy = corners + 0.1 * outputs((4,), 32, seed=turn)
        given = codec.give_out(noisy, learns=True)
        if turn == 20:
            again.load_state_dict(codec.state_dict())
        elif turn > 20:
            assert torch.equal(again.give_out(noisy, learns=True), given)
    assert len(codec.packed[CODES].unique()) == 4 and (given - corners).abs().max() < 0.3


def test_looking_at_outputs_before_the_first_batch_leaves_no_codebook() -> None:
    codec, h = quantiser((4,), 64), outputs((4,))
    assert torch.equal(codec.give_out(h), h) and codec.state_dict() == {}


def plan_of(*overrides: str, processes: int = 2) -> Plan:
    return make_plan(load_config(None, [*TINY, "codec.name=vq", "codec.codes=16", *overrides]), processes)


def blocks_of(plan: Plan, stage: int) -> list[Block]:
    return [plan.blueprint.build_block(index, CPU) for index in plan.placement.blocks_of(stage)]


@pytest.mark.parametrize("overrides", [[], ["training.precision=bf16"], ["training.channels_last=false", "codec.groups=4"]])
def test_what_comes_out_of_a_slot_is_what_the_next_block_would_have_got(overrides: list[str]) -> None:
    plan = plan_of("partition.blocks=2", *overrides)
    block = blocks_of(plan, 0)[0]
    batch = BatchSource(plan.config.data, 0, plan.data).training_batch(0)
    given = block.forward(batch.images, Batch(0, batch.labels))
    slot = new_slot(plan.layout_after(0))
    message = Message(Kind.TRAIN, 0, 0, {LABELS: batch.labels, **block.codec.packed})
    plan.layout_after(0).check(message)
    slot.pack(message)
    read = slot.unpack().to(CPU).tensors
    assert set(read) == {ACTIVATION, LABELS}
    assert torch.equal(read[ACTIVATION], given)
    assert (read[ACTIVATION].stride(), read[ACTIVATION].dtype) == (given.stride(), given.dtype)


def test_the_reference_learns_with_it_and_goes_on_where_it_was_saved() -> None:
    plan = plan_of("partition.blocks=3", processes=1)
    batches = [BatchSource(plan.config.data, 0, plan.data).training_batch(number) for number in range(4)]
    pairs = [(batch.images, batch.labels) for batch in batches]
    whole, begun = (blocks_of(plan_of("partition.blocks=3", processes=1), 0) for _ in range(2))
    losses = train(whole, pairs)
    train(begun, pairs[:2], stream_ends=False)
    file = io.BytesIO()
    torch.save([block.state_dict() for block in begun], file)
    resumed = blocks_of(plan_of("partition.blocks=3", processes=1), 0)
    for block, state in zip(resumed, torch.load(io.BytesIO(file.getvalue()), weights_only=True), strict=True):
        block.load_state_dict(state)
    assert train(resumed, pairs[2:]) == losses[2:]
    for one, other in zip(whole, resumed, strict=True):
        assert not differing(one.codec.state_dict(), other.codec.state_dict())
    assert [bool(block.codec.state_dict()) for block in whole] == [True, True, False]


def test_a_network_on_its_own_quantises_as_its_blocks_do() -> None:
    plan = plan_of("partition.blocks=3", processes=1)
    blocks = blocks_of(plan, 0)
    batch = BatchSource(plan.config.data, 0, plan.data).training_batch(0)
    train(blocks, [(batch.images, batch.labels)])
    x = batch.images
    for block in blocks:
        x, logits = block.predict(x)
    network = plain_network(blocks)
    with torch.no_grad():
        torch.testing.assert_close(network(batch.images), logits)
    assert [name for name, _ in network.named_children() if name.startswith("codec")] == ["codec0", "codec1"]


def test_a_thirtieth_of_the_bytes_travels_on_digits() -> None:
    """Codebooks included, at the width of the digits' runs."""
    network = ("data.name=digits", "model.name=vgg8b", "model.width=0.25", "partition.blocks=4", "data.batch_size=256")
    exact, coded = (make_plan(load_config(None, [*network, *more]), 4) for more in ([], ["codec.name=vq", "codec.codes=16"]))
    sizes = [[edge.layout().message_bytes(Kind.TRAIN, 256) for edge in plan.edges] for plan in (exact, coded)]
    ratios = [left / right for left, right in zip(*sizes, strict=True)]
    # Behind the third block two by two positions are left, and the codebook outweighs their numbers.
    assert min(ratios[:2]) > 100 and ratios[2] > 12 and sum(sizes[0]) > 30 * sum(sizes[1])


def test_a_sixtieth_of_the_bytes_travels_on_cifar() -> None:
    """With the default codebook, against fp32; docs/results.md says so."""
    images = [
        "data.name=synthetic",
        "data.shape=[3,32,32]",
        "data.classes=10",
        "data.samples=1280",
        "training.precision=fp32",
    ]
    sizes = []
    for codec in ("none", "vq"):
        changed = [*images, "optimizer.warmup_steps=0", f"codec.name={codec}"]
        plan = make_plan(load_config("configs/cifar10_vgg8b_small.yaml", changed), 4)
        sizes.append(sum(edge.layout().message_bytes(Kind.TRAIN, 128) for edge in plan.edges))
    assert sizes[0] > 60 * sizes[1]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["codec.groups=5"], "codec.name: got vq, allowed: none: block 0: groups=5 do not divide"),
        (["link.dtype=int8"], "link.dtype: got int8, which has no effect with codec.name=vq"),
        (["placement.replicas=[1,2]"], "placement.replicas: got 2 with codec.name=vq, allowed: 1"),
        (["codec.name=none"], "codec.codes: got 16, which has no effect with codec.name=none; it needs vq"),
        (["model.patches=4", "codec.groups=1"], "of patches has none"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        plan_of("partition.blocks=2", *overrides, processes=3 if "replicas" in overrides[0] else 2)
    assert complaint in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_has_been_learned_is_a_program_for_any_number_of_samples(shape: tuple[int, ...]) -> None:
    """As `greedypipe export` makes it, in the ordinary memory layout."""
    codec = quantiser(shape, 5)
    codec.give_out(outputs(shape, seed=1), learns=True)
    batch = torch.export.Dim("batch", min=1)
    module = codec.as_module().to(memory_format=torch.contiguous_format)
    program = torch.export.export(module, (outputs(shape, 2),), dynamic_shapes=({0: batch},)).module()
    for rows in (1, 7):
        assert torch.equal(program(outputs(shape, rows)), codec.give_out(outputs(shape, rows)))
