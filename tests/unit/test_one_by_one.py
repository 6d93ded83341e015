"""Blocks that train one after another: an independent program, what stands still, and what a schedule sees."""

import io

import pytest
import torch

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.best_cut import make_forecast
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline import reference
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.networks.vgg import VggConfig
from greedypipe.pipeline.optimizer import SgdConfig
from greedypipe.pipeline.sections import TrainingConfig
from tests.oracles import programs
from tests.unit.test_feedback_oracles import LR, Program, data
from tests.unit.tiny import STEPS, differing, head, learned, make_blocks, make_blueprint

BLOCKS = 4
IN_TURN = TrainingConfig(epochs=1, channels_last=False, schedule="one_by_one")
OWN = STEPS // 2
"""Batches that every block learns from in one epoch."""


def made(dropout: float = 0.0, training: TrainingConfig = IN_TURN, blocks: int = BLOCKS) -> list[Block]:
    model = VggConfig(width=0.1, dropout=dropout)
    return make_blocks(blocks, model=model, head=head("mlp_sr"), optimizer=SgdConfig(lr=LR), training=training)


def test_it_is_greedy_training_one_block_after_another() -> None:
    blocks, batches = made(), data(BLOCKS * OWN)
    program = Program(blocks)
    programs.greedy(program.f, program.heads, program.sgd(program.f, program.heads), batches, OWN)
    losses = reference.train(blocks, batches)
    program.assert_equals_blocks()
    trained = [[loss == loss for loss in row] for row in losses]
    assert trained == [[number // OWN == index for index in range(BLOCKS)] for number in range(BLOCKS * OWN)]
    assert [(block.turn, block.step, block.finished) for block in blocks] == [(BLOCKS * OWN, OWN, True)] * BLOCKS


def test_the_first_block_learns_as_in_decoupled_greedy_learning_and_then_stands_still() -> None:
    together = made(0.3, IN_TURN.model_copy(update={"schedule": "together"}))
    in_turn, batches = made(0.3), data(BLOCKS * OWN)
    reference.train(together, batches[:OWN])
    reference.train(in_turn, batches)
    assert not differing(learned(in_turn[:1]), learned(together[:1]))


def test_one_block_is_back_propagation() -> None:
    together = made(0.3, IN_TURN.model_copy(update={"schedule": "together"}), blocks=1)
    in_turn = made(0.3, blocks=1)
    for blocks in (together, in_turn):
        reference.train(blocks, data(OWN))
    assert not differing(learned(in_turn), learned(together))


@pytest.mark.parametrize("at", [1, OWN, OWN + 1, 3 * OWN + 2])
def test_a_saved_run_goes_on_bit_for_bit(at: int) -> None:
    """In the middle of a block's part as well as between two."""
    batches = data(BLOCKS * OWN)
    whole, begun, resumed = made(0.3), made(0.3), made(0.3)
    reference.train(whole, batches)
    reference.train(begun, batches[:at])
    for before, after in zip(begun, resumed, strict=True):
        file = io.BytesIO()
        torch.save(before.state_dict(), file)
        file.seek(0)
        after.load_state_dict(torch.load(file, weights_only=True))
    reference.train(resumed, batches[at:])
    assert not differing(learned(resumed), learned(whole))


def test_a_learning_rate_falls_over_the_blocks_own_steps() -> None:
    training = IN_TURN.model_copy(update={"epochs": 2})
    blocks = make_blocks(2, training=training, optimizer=SgdConfig(lr=1.0, schedule="step", step_epochs=1, gamma=0.5))
    seen = []
    for batch in data(2 * STEPS):
        seen.append([block.learning_rate for block in blocks])
        reference.train(blocks, [batch])
    first = [1.0] * OWN + [0.5] * OWN
    assert seen == [[rate, 1.0] for rate in first] + [[0.25, rate] for rate in first]


def test_the_stream_is_as_many_times_longer_as_there_are_blocks() -> None:
    blueprint = make_blueprint(3, training=IN_TURN)
    assert (blueprint.epochs, blueprint.total_steps, blueprint.block_steps) == (3, 3 * OWN, OWN)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["method.name=ddg"], "training.schedule: got one_by_one with method.name=ddg, allowed: together: feedback"),
        (["buffers.policy=replay"], "training.schedule: got one_by_one with buffers.policy=replay, allowed: fifo"),
        (
            ["partition.boundaries=auto"],
            "training.schedule: got one_by_one with partition.boundaries=auto, allowed: together",
        ),
    ],
)
def test_what_it_cannot_be_combined_with_is_refused_in_one_line(settings: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(load_config(None, ["training.schedule=one_by_one", *settings]), 2)
    (line,) = str(error.value).splitlines()
    assert line.startswith(complaint)


def test_the_planner_does_not_predict_what_changes_with_every_block() -> None:
    with pytest.raises(ValueError, match=r"training\.schedule: got one_by_one, allowed: together"):
        make_forecast(load_config(None, ["training.schedule=one_by_one"]), 2)
