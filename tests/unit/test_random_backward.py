"""Feedback alignment: gradients of inputs go through fixed random tensors, all else is autograd's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.networks.random_backward import RandomConv2d, RandomLinear, randomise
from greedypipe.pipeline.networks.vgg import VggConfig
from tests.unit.tiny import make_blueprint

CASES = {
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "linear of tokens, without bias": (lambda: nn.Linear(6, 4, bias=False), (5, 3, 6)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 6)),
    "strided, grouped, without bias": (lambda: nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), (2, 4, 7, 7)),
}
every_case = pytest.mark.parametrize("case", CASES)


def pair(case: str, seed: int = 0) -> tuple[nn.Module, nn.Module, Tensor]:
    """A layer, the same with random feedback, and an input."""
    torch.manual_seed(1)
    make, shape = CASES[case]
    plain = make()
    random = copy.deepcopy(nn.Sequential(plain))
    randomise((Layer("one", "one", random),), seed)
    assert isinstance(random[0], RandomConv2d | RandomLinear)
    return plain, random[0], torch.randn(shape)


def gradients(module: nn.Module, x: Tensor, *, autocast: bool = False) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = module(leaf)
    module.zero_grad()
    torch.manual_seed(2)
    y.backward(torch.randn_like(y))
    assert leaf.grad is not None
    return y, leaf.grad, {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


@every_case
@pytest.mark.parametrize("autocast", [False, True])
def test_through_the_weights_themselves_it_is_autograd_bit_for_bit(case: str, autocast: bool) -> None:
    plain, random, x = pair(case)
    random.feedback = random.weight.detach().clone()  # type: ignore[operator]
    expected, found = gradients(plain, x, autocast=autocast), gradients(random, x, autocast=autocast)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-6)
    for name, gradient in expected[2].items():
        torch.testing.assert_close(found[2][name], gradient, rtol=1e-5, atol=1e-6)


@every_case
def test_the_gradient_of_the_weight_is_exact_and_that_of_the_input_is_not(case: str) -> None:
    plain, random, x = pair(case)
    expected, found = gradients(plain, x), gradients(random, x)
    assert torch.equal(found[0], expected[0])
    assert not torch.allclose(found[1], expected[1])
    for name, gradient in expected[2].items():
        torch.testing.assert_close(found[2][name], gradient, rtol=1e-5, atol=1e-6)


def test_random_tensors_follow_from_the_seed_are_not_saved_and_leave_the_weights_alone() -> None:
    exact, random, again = (
        make_blueprint(2, model=VggConfig(width=0.1, backward=backward)).network
        for backward in ("exact", "random", "random")
    )
    assert all(torch.equal(exact.state_dict()[name], value) for name, value in random.state_dict().items())
    assert exact.state_dict().keys() == random.state_dict().keys()
    first, second = (dict(network.layers[1].module.named_buffers()) for network in (random, again))
    assert torch.equal(first["conv.feedback"], second["conv.feedback"])


def test_what_it_cannot_replace_is_refused() -> None:
    same = nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"))
    with pytest.raises(ValueError, match=r"model\.backward: got random, but layer one does not pad"):
        randomise((Layer("one", "one", same),), 0)
