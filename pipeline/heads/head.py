"""The interface of heads: from a block's activation to outputs of the task.

A head is a function ``head(site, **keys)`` that returns a module, activation [N, ...] to outputs [N, classes]; its keys are
those of section `head` of the configuration. A function that only handles maps [C, H, W] is wrapped in `on_maps`, which
turns vectors and tokens into maps.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import BaseModel, Field
from torch import Tensor, nn

from greedypipe.pipeline.site import Shapes, Site

Build = Callable[..., nn.Module]


class HeadConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """The auxiliary head of every block but the last, whose head is the network's own classifier."""

    name: str = Field(description="the head")
    by_block: tuple[dict[str, Any], ...] = Field(
        (),
        description="for each block but the last, keys of this section that are other there, e.g. [{name: cnn}, {}, {}]; "
        "[]: all blocks have the same head",
    )


def stands_anywhere(site: Site) -> str:
    """The head can stand at every activation."""
    return ""


class Head(NamedTuple):
    """An entry in the table of heads.

    Attributes:
        config: Its keys.
        build: The function that builds it.
        refusal: Why it cannot stand at a site; empty where it can.
    """

    config: type[HeadConfig]
    build: Build
    refusal: Callable[[Site], str] = stands_anywhere


class MeanOverTokens(nn.Module):
    """[N, T, ...] -> [N, ...]: of tokens, or of patches."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def on_vectors(build: Build) -> Build:
    """Extends a head for vectors [C] and signals [C, T] to tokens [T, C], and one for maps to maps of patches [P, C, H, W]:
    averaged first."""

    def built(site: Site, **keys: object) -> nn.Module:
        shape = site.shapes.output
        if len(shape) not in (2, 4) or site.is_signal:
            return build(site, **keys)
        return nn.Sequential(MeanOverTokens(), build(_with_output(site, shape[1:]), **keys))

    return built


def on_maps(build: Build) -> Build:
    """Extends a head for maps [C, H, W] and signals [C, T] to vectors [C], as 1 x 1 maps, and to tokens [T, C], which are
    averaged first."""

    def built(site: Site, **keys: object) -> nn.Module:
        shape = site.shapes.output
        if len(shape) != 1:
            return build(site, **keys)
        as_map = (shape[0], 1, 1)
        return nn.Sequential(nn.Unflatten(1, as_map), build(_with_output(site, as_map), **keys))

    return on_vectors(built)


def _with_output(site: Site, shape: tuple[int, ...]) -> Site:
    return replace(site, shapes=Shapes(site.shapes.input, shape))
