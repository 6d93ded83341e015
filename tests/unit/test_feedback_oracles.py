"""Blocks with feedback compute what each method's own sequential program computes, bit for bit."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from greedypipe.pipeline import reference
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import FeedbackConfig
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.methods.dfa import feedback_matrix
from greedypipe.pipeline.networks.vgg import VggConfig
from greedypipe.pipeline.optimizer import AdamConfig, SgdConfig
from greedypipe.pipeline.randomness import derive_seed
from greedypipe.pipeline.sections import TrainingConfig
from tests.oracles import programs
from tests.unit.tiny import CLASSES, DIGITS, head, make_blocks, method

BLOCKS, BATCHES = 4, 9
LR, AUXILIARY_LR = 0.05, 1e-3
VGG = VggConfig(width=0.1)
DELAYS = pytest.mark.parametrize("delay", [1, 2])


def data(batches: int = BATCHES, rows: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Batches, one of which is smaller, in the middle of the stream."""
    generator = torch.Generator().manual_seed(1)
    sizes = [rows - 2 if number == 3 else rows for number in range(batches)]
    return [
        (torch.randn(size, *DIGITS, generator=generator), torch.randint(CLASSES, (size,), generator=generator))
        for size in sizes
    ]


def blocks_of(name: str, delay: int, **keys: Any) -> list[Block]:
    return make_blocks(
        BLOCKS,
        model=keys.pop("model", VGG),
        method=method(name, **keys),
        head=head("mlp_sr"),
        optimizer=SgdConfig(lr=LR),
        auxiliary=AdamConfig(lr=AUXILIARY_LR, weight_decay=0),
        feedback=FeedbackConfig(delay=(delay,)),
        training=TrainingConfig(epochs=3, channels_last=False),
    )


class Program:
    """What a program is given: copies of the blocks' modules, in training mode, and optimizers like theirs."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = blocks
        self.f = programs.copies([nn.Sequential(*(layer.module for layer in block.layers)) for block in blocks])
        self.heads = programs.copies([block.method.head for block in blocks])
        for module in (*self.f, *self.heads):
            module.train()

    def sgd(self, *modules: Sequence[nn.Module]) -> list[optim.Optimizer]:
        """One optimizer per block, of the modules of all the given lists."""
        return [sgd([p for module in parts for p in module.parameters()]) for parts in zip(*modules, strict=True)]

    def of_layers(self) -> list[optim.Optimizer]:
        """Of the layers alone, but for the last block, whose classifier they train as well."""
        inner = [sgd(list(module.parameters())) for module in self.f[:-1]]
        return [*inner, sgd([*self.f[-1].parameters(), *self.heads[-1].parameters()])]

    def assert_equals_blocks(self) -> None:
        for k, block in enumerate(self.blocks):
            own = nn.Sequential(*(layer.module for layer in block.layers))
            assert_equal(own, self.f[k], f"layers of block {k}")
            assert_equal(block.method.head, self.heads[k], f"head of block {k}")


def sgd(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(parameters, LR, 0.9, weight_decay=5e-4, fused=True)


def adam(module: nn.Module) -> optim.Optimizer:
    return optim.Adam(module.parameters(), AUXILIARY_LR, fused=True)


def assert_equal(left: nn.Module, right: nn.Module, what: str) -> None:
    theirs = right.state_dict()
    assert left.state_dict().keys() == theirs.keys()
    different = [name for name, value in left.state_dict().items() if not torch.equal(value, theirs[name])]
    assert not different, f"{what}: {different}"


def compare(blocks: list[Block], run: Callable[[Program], None]) -> None:
    program = Program(blocks)
    run(program)
    reference.train(blocks, data())
    program.assert_equals_blocks()


def test_without_feedback_it_is_decoupled_greedy_learning() -> None:
    compare(blocks_of("cross_entropy", 1), lambda own: programs.dgl(own.f, own.heads, own.sgd(own.f, own.heads), data()))


@DELAYS
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("features_replay", {"graphs": False}),
        ("ddg", {"graphs": True}),
        ("fdg", {"graphs": True, "shrink": 0.5}),
    ],
)
def test_delayed_gradients(name: str, keys: dict[str, Any], delay: int) -> None:
    def run(own: Program) -> None:
        probes = own.sgd(own.heads)
        programs.delayed_gradient(own.f, own.heads, own.of_layers(), probes, data(), delay, **keys)

    compare(blocks_of(name, delay), run)


@DELAYS
@pytest.mark.parametrize("name", ["dni", "cdni"])
def test_synthetic_gradients(name: str, delay: int) -> None:
    blocks = blocks_of(name, delay, kernel=3)
    inner: list[Any] = [block.method for block in blocks[:-1]]
    synthesisers = programs.copies([one.synthesiser for one in inner])

    def run(own: Program) -> None:
        auxiliary = [adam(one) for one in synthesisers]
        programs.dni(own.f, own.heads, synthesisers, own.of_layers(), auxiliary, own.sgd(own.heads), data(), delay)

    compare(blocks, run)
    for k, one in enumerate(inner):
        assert_equal(one.synthesiser, synthesisers[k], f"synthesiser of block {k}")


@DELAYS
def test_local_critics(delay: int) -> None:
    def run(own: Program) -> None:
        programs.local_critic(own.f, own.heads, own.of_layers(), [adam(one) for one in own.heads], data(), delay)

    compare(blocks_of("local_critic", delay), run)


@DELAYS
def test_last_gradient(delay: int) -> None:
    def run(own: Program) -> None:
        programs.last_gradient(own.f, own.heads, own.sgd(own.f, own.heads), data(), delay, 0.3)

    compare(blocks_of("last_gradient", delay, weight=0.3), run)


@DELAYS
def test_direct_feedback(delay: int) -> None:
    blocks = blocks_of("dfa", delay)
    matrices = [feedback_matrix(block.site) for block in blocks]

    def run(own: Program) -> None:
        programs.dfa(own.f, own.heads, matrices, own.of_layers(), own.sgd(own.heads), data(), delay)

    compare(blocks, run)


@DELAYS
def test_target_propagation(delay: int) -> None:
    blocks = blocks_of("dtp", delay, noise=0.2, rate=0.05)
    inner: list[Any] = [block.method for block in blocks[:-1]]
    inverses = [programs.copies([one.inverse])[0] if one.inverse else None for one in inner]

    def noisy(k: int, t: int, x: Tensor) -> Tensor:
        torch.manual_seed(derive_seed(0, "learn", k, t))
        return x + 0.2 * torch.randn_like(x)

    def run(own: Program) -> None:
        auxiliary = [adam(one) if one else None for one in inverses]
        programs.dtp(own.f, own.heads, inverses, own.of_layers(), auxiliary, own.sgd(own.heads), data(), delay, 0.05, noisy)

    compare(blocks, run)


@DELAYS
@pytest.mark.parametrize("local", ["cross_entropy", "predsim"])
def test_overlap(local: str, delay: int) -> None:
    blocks = blocks_of("overlap", delay, weight=0.7, local={"name": local})
    inner: list[Any] = [block.method for block in blocks[:-1]]
    losses = programs.copies([one.local for one in inner])

    def run(own: Program) -> None:
        own.heads = [*(one.get_submodule("head") for one in losses), own.heads[-1]]
        theirs = [lambda h, y, one=one: one(Sample(y, output=h)) for one in losses]
        last = own.heads[-1]
        optimizers = own.sgd(own.f, [*losses, last])
        programs.overlap(own.f, [*theirs, lambda h, y: programs.ce(last(h), y)], optimizers, data(), delay, 0.7)

    compare(blocks, run)
    for k, one in enumerate(inner):
        assert_equal(one.local, losses[k], f"own loss of block {k}")


@DELAYS
@pytest.mark.parametrize("weights", ["present", "stashed"])
@pytest.mark.parametrize("lost", [0, 0.5])
def test_late_chain(lost: float, weights: str, delay: int) -> None:
    blocks = blocks_of("late_chain", delay, weights=weights, lost=lost)
    methods: list[Any] = [block.method for block in blocks]

    def is_lost(k: int, b: int) -> bool:
        return bool(methods[k].is_lost(Sample(torch.zeros(1), turn=b)))

    def run(own: Program) -> None:
        graphs = weights == "stashed"
        programs.late_chain(own.f, own.heads, own.sgd(own.f, own.heads), data(), delay, 0.5, graphs=graphs, lost=is_lost)

    compare(blocks, run)


@DELAYS
@pytest.mark.parametrize("every", [1, 2])
def test_overlap_through_weights(every: int, delay: int) -> None:
    blocks = blocks_of("overlap_weights", delay, weight=0.7, every=every)
    inner: list[Any] = [block.method for block in blocks[:-1]]
    ahead = programs.copies([one.copy for one in inner])

    def run(own: Program) -> None:
        for module in ahead:
            module.train()
        programs.overlap_weights(own.f, own.heads, ahead, own.sgd(own.f, own.heads), data(), delay, 0.7, every)

    compare(blocks, run)


def test_a_copied_block_begins_as_the_next_block_begins() -> None:
    blocks = blocks_of("overlap_weights", 1)
    for block, following in itertools.pairwise(blocks):
        own: Any = block.method
        theirs = [*(layer.module for layer in following.layers), following.method.head]
        expected = [parameter for module in theirs for parameter in module.parameters()]
        for mine, their in zip(own.copy.parameters(), expected, strict=True):
            assert torch.equal(mine, their)


@DELAYS
@pytest.mark.parametrize(("name", "every"), [("man", 1), ("man", 2), ("man_pp", 2)])
def test_momentum_auxiliary(name: str, every: int, delay: int) -> None:
    blocks = blocks_of(name, delay, momentum=0.9, every=every)

    def run(own: Program) -> None:
        ahead: list[Any] = own.heads[:-1]
        heads = [*(one.head for one in ahead), own.heads[-1]]
        first = [trunk[0] for trunk in own.f]  # type: ignore[index]
        scale = [one.scale for one in ahead] if name == "man_pp" else None
        trained = [
            [*own.f[k].parameters(), *(p for p in own.heads[k].parameters() if p.requires_grad)] for k in range(BLOCKS)
        ]
        optimizers = [sgd(parameters) for parameters in trained]
        biases, averages = [one.bias for one in ahead], [one.average for one in ahead]
        programs.man(own.f, heads, first, biases, averages, optimizers, data(), delay, 0.9, every, scale)

    compare(blocks, run)
