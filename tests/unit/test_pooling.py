"""Pools of heads: those that a GPU repeats have the bits of those that it does not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline.heads import build_head
from greedypipe.pipeline.heads.space import Space, space_of
from tests.unit.tiny import head, make_site

FIXED, ADAPTIVE = (nn.AvgPool1d, nn.AvgPool2d), (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
SPACES = {
    1: Space(1, 5, 1, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.Conv1d, nn.AdaptiveAvgPool1d),
    2: Space(2, 5, 1, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.Conv2d, nn.AdaptiveAvgPool2d),
}
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 16, 20, 28, 32)


def both_passes(pool: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    leaf = x.clone().requires_grad_()
    pooled = pool(leaf)
    gradient = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    pooled.backward(gradient)
    return pooled.detach(), leaf.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5,), (5, 0)], ids=["signals", "maps"])
def test_every_fixed_pool_has_the_bits_of_the_adaptive_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    adaptive = nn.AdaptiveAvgPool2d if len(shape) == 2 else nn.AdaptiveAvgPool1d
    fixed = 0
    for size in SIZES:
        space = replace(SPACES[len(shape)], size=size)
        x = torch.randn(3, shape[0], *[size] * len(shape)).to(dtype)
        layouts = [x, x.contiguous(memory_format=torch.channels_last)] if len(shape) == 2 else [x]
        for after in range(1, size + 1):
            pool = space.pool_to(after)
            fixed += isinstance(pool, FIXED)
            for laid_out in layouts:
                ours, theirs = both_passes(pool, laid_out), both_passes(adaptive(after), laid_out)
                assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert fixed > 30


@pytest.mark.parametrize(
    ("shape", "after", "is_repeatable"),
    [
        ((6, 32, 32), 8, True),
        ((6, 8, 8), 2, True),
        ((6, 28, 28), 7, True),
        ((6, 8, 8), 1, True),
        ((6, 7, 7), 2, False),
        ((6, 6, 6), 2, False),
        ((6, 8, 16), 2, False),
    ],
    ids=str,
)
def test_windows_that_are_alike_are_repeatable(shape: tuple[int, ...], after: int, is_repeatable: bool) -> None:
    pool = space_of(make_site(shape)).pool_to(after)
    assert (isinstance(pool, FIXED) or after == 1) == is_repeatable
    assert pool(torch.zeros(2, *shape)).shape == (2, shape[0], after, after)


@pytest.mark.parametrize("name", ["mlp_aux", "mlp_sr", "cnn"])
def test_the_published_heads_are_repeatable_on_maps_of_32(name: str) -> None:
    built = build_head(head(name), make_site((16, 32, 32), images=(3, 32, 32)))
    pools = [module for module in built.modules() if isinstance(module, ADAPTIVE)]
    assert all(pool.output_size == 1 for pool in pools)
