"""Turns that are recorded and done again leave the bits of eager ones; a tape plays the part of CUDA's graphs."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.recording import recording_problems
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline import build, rates
from greedypipe.pipeline.batch import IMAGE, LABELS, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.codecs import CodecConfig
from greedypipe.pipeline.execution.graphed import WARM_UP, NotRecorded
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.methods import METHODS
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.optimizer import AdamConfig, SgdConfig
from greedypipe.pipeline.reference import train
from greedypipe.pipeline.sections import TrainingConfig
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.placement import Placement
from tests.unit.tape import Tape
from tests.unit.tiny import CPU, DROPOUT, RESNET, RGB, VGG, batch, differing, make_block, make_blueprint, method
from tests.wanted import WANTED

TURNS = WARM_UP + 4
LONG = TrainingConfig(epochs=4)
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _rates_are_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with graphs and without."""
    monkeypatch.setattr(rates, "TENSORS_ON", frozenset({"cpu"}))


def recorded(block: Block) -> Block:
    block.record({LABELS, IMAGE}, Tape)
    return block


def given(block: Block, turn: int) -> tuple[Tensor, Batch]:
    """Every fifth batch is a smaller one, as at the end of an epoch."""
    x, others = batch(block, turn)
    if turn % 5 != 4:
        return x, others
    return x[:4].clone(), replace(
        others, labels=others.labels[:4], extras={name: one[:4] for name, one in others.extras.items()}
    )


def seen_by(block: Block, turns: Sequence[int]) -> list[Any]:
    """Activations, what travels of them, losses, counters and rates of these turns."""
    found: list[Any] = []
    for turn in turns:
        x, others = given(block, turn)
        h = block.forward(x, others).clone()
        packed = {name: one.clone() for name, one in block.codec.packed.items()}
        # A slot may be filled again as soon as the batch has been learned, and others draw random numbers meanwhile.
        torch.rand(turn)
        loss, _ = block.learn()
        assert loss is not None
        x.fill_(float("nan"))
        found.append([h, packed, loss.clone(), block.turn, block.step, block.learning_rate])
    return found


def same_bits(index: int = 0, turns: int = TURNS, **sections: Any) -> None:
    keys = {"training": LONG, **sections}
    blocks = [make_block(index, 3, **copy.deepcopy(keys)) for _ in range(2)]
    eager, graphed = blocks[0], recorded(blocks[1])
    assert not differing(seen_by(eager, range(turns)), seen_by(graphed, range(turns)))
    assert not differing(eager.state_dict(), graphed.state_dict())


def test_dropout_clipping_and_a_schedule() -> None:
    same_bits(1, model=DROPOUT, optimizer=SgdConfig(lr=0.1, clip_norm=0.1, schedule="cosine", nesterov=True))


def test_batch_normalisation_under_adam() -> None:
    same_bits(0, model=VGG, images=RGB, optimizer=AdamConfig(lr=0.01, schedule="step", step_epochs=1))


def test_bf16_in_the_last_block() -> None:
    same_bits(2, model=DROPOUT, training=TrainingConfig(epochs=4, precision="bf16"))


def test_a_codec_that_learns_stays_outside() -> None:
    same_bits(0, model=RESNET, images=RGB, codec=CodecConfig(name="vq", codes=8))


RECORDED = [name for name, one in METHODS.items() if one.reach is Reach.NONE and not one.unrecorded]
PLAIN = sorted(set(RECORDED) - WANTED.keys())


@pytest.mark.parametrize("name", PLAIN)
def test_every_method_without_feedback(name: str) -> None:
    same_bits(1, turns=WARM_UP + 2, model=DROPOUT, method=method(name))


@pytest.mark.parametrize("name", sorted(WANTED.keys() & set(RECORDED)))
def test_methods_that_want_more_of_network_and_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CudaRecorder", Tape)
    overrides = ["data.name=digits", "data.batch_size=8", f"method.name={name}", "partition.blocks=2", *WANTED[name]]
    if not any(one.startswith("model.name=") for one in overrides):
        overrides += ["model.name=vgg8b", "model.width=0.1"]
    plan = make_plan(load_config(None, overrides), 1)
    source = BatchSource(plan.config.data, 0)
    batches = [source.training_batch(number) for number in range(WARM_UP + 2)]
    found = []
    for records in (False, True):
        monkeypatch.setattr(Blueprint, "records_on", lambda self, device, records=records: records)
        blueprint = plan.redrawn().blueprint
        blocks = [blueprint.build_block(index, CPU) for index in range(2)]
        losses = train(blocks, ((batch.images, batch.labels, batch.extras) for batch in batches))
        found.append([losses, *(block.state_dict() for block in blocks)])
    assert not differing(*found)


def test_the_methods_that_are_left_out_are_known() -> None:
    assert {name for name, one in METHODS.items() if one.reach is Reach.NONE} - set(RECORDED) == {"trgl_uzawa"}


def test_python_runs_until_the_turn_is_recorded_and_with_batches_of_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    loss = CrossEntropy.loss
    monkeypatch.setattr(CrossEntropy, "loss", lambda self, sample: calls.append(len(sample.labels)) or loss(self, sample))
    seen_by(recorded(make_block(training=LONG)), range(10))
    # Turns 4 and 9 have four rows. One of the calls is the recording.
    assert calls == [6] * WARM_UP + [6] + [4] * 2


def test_a_state_that_is_loaded_is_recorded_anew() -> None:
    eager, graphed, other = (make_block(1, model=DROPOUT, training=LONG) for _ in range(3))
    for block in (recorded(graphed), recorded(other)):
        seen_by(block, range(TURNS if block is graphed else WARM_UP + 2))
    expected = seen_by(eager, range(TURNS + 5))[TURNS:]
    other.load_state_dict(copy.deepcopy(graphed.state_dict()))
    assert not differing(seen_by(other, range(TURNS, TURNS + 5)), expected)
    assert not differing(other.state_dict(), eager.state_dict())


def test_a_recorded_block_finishes_and_evaluates_like_any() -> None:
    eager, graphed = make_block(0, model=DROPOUT), recorded(make_block(0, model=DROPOUT))
    for block in (eager, graphed):
        seen_by(block, range(block.total_steps))
        assert block.finished
    x, others = batch(eager, 50)
    assert not differing([*eager.predict(x), eager.forward(x, others)], [*graphed.predict(x), graphed.forward(x, others)])


class ReadsANumber(CrossEntropy):
    def loss(self, sample: Any) -> Tensor:
        loss = super().loss(sample)
        return loss * 2 if float(loss.detach()) > 1e6 else loss


def test_what_cannot_be_recorded_is_said_in_one_line() -> None:
    block = make_block(training=LONG)
    block.method.__class__ = ReadsANumber
    with pytest.raises(NotRecorded, match=r"^training\.graphs: got on, but .* cannot be recorded: operation not permitted"):
        seen_by(recorded(block), range(WARM_UP + 1))


def test_replicas_are_refused() -> None:
    with pytest.raises(ValueError, match="several replicas"):
        recorded(make_block()).become_replica(1, lambda parameters: None)


def test_a_rate_in_a_tensor_is_that_of_its_group_and_is_saved_as_a_number() -> None:
    block = make_block(optimizer=SgdConfig(lr=0.25, schedule="step", step_epochs=1, gamma=0.5))
    tensors, plain = block.state_dict(), make_block(optimizer=SgdConfig(lr=0.25, schedule="step", step_epochs=1, gamma=0.5))
    assert isinstance(tensors["optimizer"]["param_groups"][0]["lr"], float)
    # Rates of powers of two lose nothing in fp32.
    plain._optimizations.main._rates = rates.Numbers(plain._optimizations.main._optimizer)
    assert not differing(seen_by(block, range(4)), seen_by(plain, range(4)))


# What is chosen

NETWORK = ["data.name=digits", "model.name=mlp", "partition.blocks=2"]
CHOICES = {
    "training.compile": (["training.compile=inductor"], "with training.compile=inductor, allowed: auto, off: it decides"),
    "debug": (["debug.slow_stage=0"], "with keys of section debug, allowed: auto, off: deliberate trouble"),
    "feedback": (["method.name=overlap"], "with method.name=overlap, allowed: auto, off: feedback comes and goes"),
    "uzawa": (
        ["method.name=trgl_uzawa", "model.name=resnet20", "model.width=0.5"],
        "with method.name=trgl_uzawa, allowed: auto, off: its multiplier grows in some turns alone",
    ),
    "optimizer": (["optimizer.name=nadam"], "with optimizer.name=nadam, allowed: auto, off: its learning rate"),
    "accumulation": (["optimizer.accumulate_batches=2"], "with optimizer.accumulate_batches=2, allowed: auto, off: most"),
}


def problems(overrides: list[str], device: torch.device, replicas: tuple[int, ...] = (1, 1)) -> list[str]:
    config = load_config(None, [*NETWORK, *overrides])
    possible = [*NETWORK, *(one for one in overrides if not one.startswith("training.graphs")), "placement.device=cpu"]
    blueprint = make_plan(load_config(None, possible), 1).blueprint
    return list(recording_problems(config, blueprint, Placement(replicas, blueprint.num_blocks), device))


@pytest.mark.parametrize(("overrides", "complaint"), CHOICES.values(), ids=CHOICES)
def test_what_graphs_cannot_be_combined_with_is_one_line(overrides: list[str], complaint: str) -> None:
    (line,) = problems([*overrides, "training.graphs=on"], GPU)
    assert line.startswith("training.graphs: got on ") and complaint in line and "\n" not in line
    for form in ("auto", "off"):
        assert problems([*overrides, f"training.graphs={form}"], GPU) == []


@pytest.mark.parametrize(("graphs", "recorded_there"), [("auto", False), ("on", True), ("off", False)])
def test_turns_are_recorded_where_it_is_asked_for_and_on_gpus_alone(graphs: Any, recorded_there: bool) -> None:
    blueprint = make_blueprint(training=TrainingConfig(graphs=graphs))
    assert blueprint.records_on(GPU) == recorded_there
    assert not blueprint.records_on(CPU) and not blueprint.for_trials().records_on(GPU)


def test_graphs_need_a_gpu_and_stages_of_one_process() -> None:
    assert problems(["training.graphs=on"], GPU) == []
    assert problems(["training.graphs=on"], CPU) == [
        "training.graphs: got on with stages on a cpu, allowed: auto, off: graphs are CUDA's"
    ]
    (line,) = problems(["training.graphs=on"], GPU, (1, 2))
    assert "with placement.replicas=2" in line


def test_a_plan_refuses_them_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="with stages on a cpu"):
        make_plan(load_config(None, [*NETWORK, "training.graphs=on", "placement.device=cpu"]), 2)


def test_back_propagation_may_be_recorded_whatever_the_method() -> None:
    assert problems(["partition.blocks=1", "method.name=overlap", "training.graphs=on"], GPU, (1,)) == []
