"""Steps by the mean gradient of several batches: an independent program, schedules, and runs saved between two steps."""

import io

import pytest
import torch

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline import reference
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import FeedbackConfig
from greedypipe.pipeline.networks.vgg import VggConfig
from greedypipe.pipeline.optimizer import SgdConfig
from greedypipe.pipeline.recut import transferred_state
from greedypipe.pipeline.sections import TrainingConfig
from tests.oracles import programs
from tests.unit.test_feedback_oracles import LR, Program, data
from tests.unit.tiny import differing, head, learned, make_blocks, method

BATCHES = 9


def made(every: int, name: str = "cross_entropy", **keys: object) -> list[Block]:
    return make_blocks(
        3,
        model=VggConfig(width=0.1),
        method=method(name),
        head=head("mlp_sr"),
        optimizer=SgdConfig(**{"lr": LR, "accumulate_batches": every, **keys}),
        feedback=FeedbackConfig(delay=(1,)),
        training=TrainingConfig(epochs=3, channels_last=False),
    )


def test_a_step_follows_the_mean_gradient_of_so_many_batches() -> None:
    blocks = made(4)
    program = Program(blocks)
    programs.accumulated_dgl(program.f, program.heads, program.sgd(program.f, program.heads), data(), 4)
    reference.train(blocks, data())
    for k, block in enumerate(blocks):
        assert not differing(block.method.head.state_dict(), program.heads[k].state_dict())
    program.assert_equals_blocks()
    assert [(block.turn, block.step) for block in blocks] == [(BATCHES, 2)] * 3


@pytest.mark.parametrize("name", ["features_replay", "local_critic"])
def test_turns_without_a_gradient_do_not_count(name: str) -> None:
    """Blocks that wait for feedback begin later and drain: all make as many steps."""
    blocks = made(2, name)
    reference.train(blocks, data())
    assert [block.step for block in blocks] == [BATCHES // 2] * 3


@pytest.mark.parametrize("name", ["cross_entropy", "local_critic"])
@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_run_saved_between_two_steps_goes_on_bit_for_bit(at: int, name: str) -> None:
    whole, begun, resumed, assembled = (made(4, name) for _ in range(4))
    reference.train(whole, data())
    reference.train(begun, data()[:at], stream_ends=False)
    states = []
    for before, after in zip(begun, resumed, strict=True):
        file = io.BytesIO()
        torch.save(before.state_dict(), file)
        file.seek(0)
        states.append(torch.load(file, weights_only=True))
        after.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for block in assembled:
        block.load_state_dict(transferred_state(block, states)[0])
    for again in (resumed, assembled):
        reference.train(again, data()[at:])
        assert not differing(learned(again), learned(whole))


def test_a_schedule_counts_epochs_in_batches_and_warm_up_in_steps() -> None:
    """Three batches are an epoch here, and two of them a step."""
    blocks = made(2, schedule="multistep", milestones=(2,), gamma=0.5, warmup_steps=2, lr=1.0)
    rates = []
    for batch in data(9):
        rates.append(blocks[0].learning_rate)
        reference.train(blocks, [batch], stream_ends=False)
    assert rates == pytest.approx([0.01] * 2 + [0.505] * 2 + [1.0] * 2 + [0.5] * 3)


def test_more_batches_than_the_run_has_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(load_config(None, ["data.batch_size=128", "training.epochs=1", "optimizer.accumulate_batches=13"]), 2)
    assert str(error.value) == "optimizer.accumulate_batches: got 13, allowed: at most the run's 12 batches"
