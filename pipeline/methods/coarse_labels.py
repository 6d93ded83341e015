"""Fewer classes early (an idea of AlonNT/Thesis): a block tells groups of classes apart, later blocks more of them.

    loss = cross_entropy(group_head(h), group of labels) + cross_entropy(head(detach(h)), labels)

The head is a probe of all classes, so that every block has an accuracy; the groups have a head of their own, of the same
kind. A block with as many groups as classes is DGL's, bit for bit, and has no second head. Nothing travels back.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site

Groups = int | tuple[tuple[int, ...], ...]
"""How many groups of neighbouring classes there are, or the classes of each."""


class CoarseLabels(LocalLoss):
    """Cross-entropy of groups of classes."""

    class Config(MethodConfig):
        """Fewer classes early: blocks learn groups of classes, later ones finer groups (AlonNT/Thesis)."""

        name: Literal["coarse_labels"] = "coarse_labels"
        groups: tuple[Groups, ...] = Field(
            (),
            description="for each block but the last the number of groups of neighbouring classes, e.g. [2, 4, 8], or the "
            "classes of each group, e.g. [[[0, 1, 8], [2, 3]], 4]; []: 2, 4, 8, ..., up to the number of classes",
        )

    def __init__(self, site: Site, groups: tuple[Groups, ...]) -> None:
        super().__init__(site)
        classes = site.task.outputs
        group_of = _group_of(_groups_at(site.index, groups, classes), classes)
        count = max(group_of) + 1
        self.group_head = None
        if group_of != list(range(classes)):
            self.coarse = site.task.with_outputs(count)
            self.group_head = site.make_head(replace(site, task=self.coarse))
        self.group_of: Tensor
        self.register_buffer("group_of", torch.tensor(group_of), persistent=False)

    @classmethod
    def check(cls, site: Site, **keys: Any) -> None:
        groups, classes = keys.get("groups", ()), site.task.outputs
        if groups and len(groups) != site.num_blocks - 1:
            raise ValueError(
                f"method.groups: got {len(groups)} entries, allowed: {site.num_blocks - 1}, one for each block but the last"
            )
        own = _checked(_groups_at(site.index, groups, classes), classes)
        if site.index == 0:
            return
        coarser = _checked(_groups_at(site.index - 1, groups, classes), classes)
        if len(set(zip(own, coarser, strict=True))) > len(set(own)):
            raise ValueError(
                f"method.groups: got groups of block {site.index} that are no parts of those of block {site.index - 1}, "
                "allowed: later groups divide earlier ones"
            )

    def loss(self, sample: Sample) -> Tensor:
        if self.group_head is None:
            return self.task.loss(self.head(sample.h), sample.labels)
        return self.coarse.loss(self.group_head(sample.h), self.group_of[sample.labels]) + self.probe_loss(sample)


def _groups_at(index: int, groups: tuple[Groups, ...], classes: int) -> Groups:
    """Those of block `index`; the planner may cut into more blocks than there are entries."""
    return groups[min(index, len(groups) - 1)] if groups else min(2 ** min(index + 1, 62), classes)


def _group_of(groups: Groups, classes: int) -> list[int]:
    """The group of every class."""
    if isinstance(groups, int):
        return [number * groups // classes for number in range(classes)]
    found = {number: group for group, members in enumerate(groups) for number in members}
    return [found[number] for number in range(classes)]


def _checked(groups: Groups, classes: int) -> list[int]:
    if isinstance(groups, int):
        if not 2 <= groups <= classes:
            raise ValueError(f"method.groups: got {groups} groups, allowed: 2 to {classes}, the number of classes")
    elif sorted(number for members in groups for number in members) != list(range(classes)) or len(groups) < 2:
        raise ValueError(f"method.groups: got {list(map(list, groups))}, allowed: every class of 0 to {classes - 1} once")
    return _group_of(groups, classes)
