"""Pools as GPUs compute them: the numbers of torch's own, in operations that can be repeated."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.pools import averaged, pool_repeatably

Size = int | tuple[int | None, int | None]


def results(pooled: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.rand(pooled.shape)
    return pooled.detach(), torch.autograd.grad((pooled * weights).sum(), x)[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8), 2), ((28, 28), 2), ((7, 7), 2), ((7, 5), 3), ((2, 2), 7), ((6, 9), (None, 4)), ((5, 5), 1), ((4, 6), (4, 6))],
)
def test_the_numbers_and_gradients_are_those_of_torch(
    shape: tuple[int, int], size: Size, layout: torch.memory_format
) -> None:
    x = torch.randn(3, 4, *shape).to(memory_format=layout).requires_grad_()
    torch.manual_seed(1)
    expected = results(functional.adaptive_avg_pool2d(x, size), x)
    torch.manual_seed(1)
    torch.testing.assert_close(results(averaged(x, size), x), expected)


@pytest.mark.parametrize(("length", "size"), [(40, 10), (11, 4)])
def test_likewise_of_signals(length: int, size: int) -> None:
    x = torch.randn(3, 4, length).requires_grad_()
    torch.manual_seed(1)
    expected = results(functional.adaptive_avg_pool1d(x, size), x)
    torch.manual_seed(1)
    torch.testing.assert_close(results(averaged(x, size), x), expected)


@pytest.mark.parametrize(("rows", "size"), [(8, 2), (4, 2), (16, 4)])
def test_windows_of_a_power_of_two_have_the_very_bits(rows: int, size: int) -> None:
    x = torch.randn(5, 24, rows, rows)
    assert torch.equal(averaged(x, size), functional.adaptive_avg_pool2d(x, size))


def test_modules_keep_their_names_and_the_forbidden_operation_is_gone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.AdaptiveAvgPool2d(2)), nn.Flatten(), nn.Linear(8, 3))
    before, names = list(network.state_dict()), [type(module) for module in network.modules()]
    x = torch.randn(2, 1, 7, 7)
    expected = network(x)
    assert uses_the_forbidden(network, x)
    pool_repeatably(network)
    assert not uses_the_forbidden(network, x)
    torch.testing.assert_close(network(x), expected)
    assert list(network.state_dict()) == before and [type(module) for module in network.modules()] == names


def uses_the_forbidden(network: nn.Module, x: Tensor) -> bool:
    with torch.profiler.profile() as profile:
        network(x).sum().backward()
    return any("_adaptive_avg_pool2d_backward" in event.key for event in profile.key_averages())
