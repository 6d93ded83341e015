"""Where two methods must be one: degenerate cases of feedback, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline import reference
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import FeedbackConfig
from greedypipe.pipeline.methods import METHODS
from greedypipe.pipeline.methods.late_chain import LateChain
from greedypipe.pipeline.methods.local_losses import LOCAL_LOSSES
from greedypipe.pipeline.networks.vgg import VggConfig
from greedypipe.pipeline.optimizer import AdamConfig, SgdConfig
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.sample import Sample
from greedypipe.pipeline.sections import TrainingConfig
from tests.oracles import programs
from tests.unit.test_feedback_oracles import Program, data
from tests.unit.test_forward_only import OF_SIGNALS
from tests.unit.tiny import RESNET, head, make_blocks, method

WITH_FEEDBACK = [name for name, one in METHODS.items() if one.reach != "none"]
DROPOUT = VggConfig(width=0.1, dropout=0.3)


def trained(name: str, delay: int | tuple[int, ...] = 1, blocks: int = 4, **keys: Any) -> list[Block]:
    """Blocks of a network with dropout, after a few batches."""
    delays = (delay,) if isinstance(delay, int) else delay
    model, its_head = keys.pop("model", DROPOUT), head(keys.pop("head", "mlp_sr"))
    made = make_blocks(
        blocks,
        model=model,
        method=method(name, **keys),
        head=its_head,
        optimizer=SgdConfig(lr=0.05),
        auxiliary=AdamConfig(lr=1e-3),
        feedback=FeedbackConfig(delay=delays),
        training=TrainingConfig(epochs=3),
    )
    reference.train(made, data())
    return made


def layers(blocks: list[Block]) -> dict[str, Tensor]:
    return {name: value for block in blocks for name, value in block.layer_state().items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.parametrize("delay", [0, 1, 2])
@pytest.mark.parametrize("name", ["last_gradient", "overlap", "overlap_weights", "late_chain"])
def test_at_weight_0_every_bit_is_that_of_decoupled_greedy_learning(name: str, delay: int) -> None:
    assert_same(layers(trained(name, delay, weight=0)), layers(trained("cross_entropy")))


@pytest.mark.parametrize("weights", ["present", "stashed"])
def test_where_every_late_gradient_is_lost_every_bit_is_that_of_decoupled_greedy_learning(weights: str) -> None:
    assert_same(layers(trained("late_chain", lost=1, weights=weights)), layers(trained("cross_entropy")))


def test_as_many_late_gradients_are_lost_as_asked_for_and_others_in_every_block() -> None:
    first, second = (block.method for block in trained("late_chain", lost=0.25)[:2])
    assert isinstance(first, LateChain) and isinstance(second, LateChain)
    lost = [[one.is_lost(Sample(torch.zeros(1), turn=turn)) for turn in range(2000)] for one in (first, second)]
    assert all(0.22 < sum(one) / 2000 < 0.28 for one in lost) and lost[0] != lost[1]


@pytest.mark.parametrize("name", ["ddg", "fdg", "features_replay"])
def test_layers_that_learn_from_the_last_loss_alone_have_the_same_bits_with_any_head(name: str) -> None:
    probed, otherwise = trained(name), trained(name, head="conv")
    assert_same(layers(probed), layers(otherwise))
    assert len(probed[0].method.head) != len(otherwise[0].method.head)


@pytest.mark.parametrize("local", [name for name in LOCAL_LOSSES if name in OF_SIGNALS])
def test_overlap_at_weight_0_is_its_local_loss(local: str) -> None:
    assert_same(layers(trained("overlap", local={"name": local}, weight=0)), layers(trained(local)))


def test_a_loss_that_changes_from_batch_to_batch_does_so_below_overlap() -> None:
    local = {"name": "trgl_uzawa", "every": 2}
    below, alone = trained("overlap", local=local, weight=0, model=RESNET), trained("trgl_uzawa", every=2, model=RESNET)
    assert_same(layers(below), layers(alone))
    assert not torch.equal(below[1].method.local.multiplier, torch.ones(()))


def test_gradients_that_do_not_shrink_are_those_of_ddg() -> None:
    assert_same(layers(trained("fdg", shrink=1)), layers(trained("ddg")))


@pytest.mark.parametrize("name", ["features_replay", "ddg"])
def test_without_delay_a_chain_of_gradients_is_back_propagation(name: str) -> None:
    plain = VggConfig(width=0.1)
    own = Program(trained_later := make_fresh(name, plain))
    programs.back_propagation(own.f, own.heads, own.of_layers(), data())
    reference.train(trained_later, data())
    for block, trunk in zip(trained_later, own.f, strict=True):
        mine = nn.Sequential(*(layer.module for layer in block.layers)).state_dict()
        assert_same(mine, trunk.state_dict())


def make_fresh(name: str, model: VggConfig, delay: int = 0) -> list[Block]:
    return make_blocks(
        4,
        model=model,
        method=method(name),
        head=head("mlp_sr"),
        optimizer=SgdConfig(lr=0.05),
        feedback=FeedbackConfig(delay=(delay,)),
        training=TrainingConfig(epochs=3, channels_last=False),
    )


@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_one_block_is_back_propagation(name: str) -> None:
    assert_same(layers(trained(name, blocks=1)), layers(trained("cross_entropy", blocks=1)))


def test_stashed_and_present_weights_are_the_same_while_the_layers_stand_still() -> None:
    """The first late gradient of block 0 is pulled through weights that differ by its local steps alone."""
    stashed, present = (trained("late_chain", 0, weights=weights) for weights in ("stashed", "present"))
    assert_same(layers(stashed), layers(present))


def test_the_right_synthesiser_gives_back_propagation() -> None:
    """A synthesiser that is the rest of the network turns a block's update into that of back-propagation."""
    made = make_fresh("dni", VggConfig(width=0.1), delay=1)
    own = Program(made)
    programs.back_propagation(own.f, own.heads, own.of_layers(), data(1))

    class Rest(nn.Module):
        """What comes behind a block, as a function from its activation to the gradient by it."""

        def __init__(self, behind: list[nn.Module], head: nn.Module) -> None:
            super().__init__()
            self.behind = nn.Sequential(*copy.deepcopy(behind)).requires_grad_(False)
            self.head = copy.deepcopy(head).requires_grad_(False)

        def forward(self, h: Tensor, labels: Tensor) -> Tensor:
            with torch.enable_grad():
                at = h.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(programs.ce(self.head(self.behind(at)), labels), at)
            return gradient

    trunks = [nn.Sequential(*(layer.module for layer in block.layers)) for block in made]
    for k, block in enumerate(made[:-1]):
        one: Any = block.method
        one.synthesiser = Rest(trunks[k + 1 :], made[-1].method.head)
    reference.train(made, data(1))
    for trunk, expected in zip(trunks, own.f, strict=True):
        assert_same(dict(trunk.named_parameters()), dict(expected.named_parameters()))


def test_an_average_with_momentum_1_never_moves() -> None:
    before = make_blocks(2, method=method("man", momentum=1.0))
    averages = [value.clone() for value in head_of(before[0]).average.parameters()]
    reference.train(before, data(4))
    assert all(torch.equal(now, then) for now, then in zip(head_of(before[0]).average.parameters(), averages, strict=True))


def head_of(block: Block) -> Any:
    return block.method.head


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_a_stream_shorter_than_the_lag_ends_with_every_step_made(name: str, batches: int) -> None:
    made = make_blocks(
        4,
        model=VggConfig(width=0.1),
        method=method(name),
        feedback=FeedbackConfig(delay=(3,)),
        training=TrainingConfig(epochs=3),
    )
    reference.train(made, data(batches))
    assert [block.turn for block in made] == [batches] * 4
    assert [block.step for block in made] == [batches] * 4


@pytest.mark.parametrize("name", ["features_replay", "last_gradient", "overlap", "late_chain", "dfa", "dtp"])
def test_a_batch_that_is_run_again_leaves_the_running_statistics_alone(name: str) -> None:
    """Every batch counts once in every layer's statistics, whenever feedback on it comes."""
    counts = {float(value) for key, value in layers(trained(name, 2)).items() if key.endswith("num_batches_tracked")}
    assert counts == {float(len(data()))}


@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_no_graph_of_parameters_that_go_on_is_kept(name: str) -> None:
    """Fused optimizers change parameters without telling autograd: a kept graph would give wrong gradients silently."""
    made = make_blocks(3, model=VggConfig(width=0.1), method=method(name), training=TrainingConfig(epochs=3))
    reference.train(made, data(4))
    for block in made:
        for state in block.state_dict()["kept"]:
            assert state["output"] is None or not state["output"].requires_grad
            assert not any(value.requires_grad for value in state["kept"].values())


@pytest.mark.parametrize("name", ["man", "man_pp", "overlap_weights"])
def test_the_next_block_may_begin_with_a_layer_without_parameters(name: str) -> None:
    """What comes back is of its first layer that has some, and a head looks through those before it."""
    cut = PartitionConfig(blocks=3, boundaries=("pool1", "pool2"))
    made = make_blocks(partition=cut, model=VggConfig(width=0.1), method=method(name), training=TrainingConfig(epochs=3))
    reference.train(made, data(4))
    assert [block.step for block in made] == [4] * 3
