"""Greedy InfoMax (Löwe et al., *Putting An End to End-to-End*, NeurIPS 2019, 1905.11786).

    loss = mean over k of InfoNCE(patch (i, j), W_k patch (i + k + 1, j)) + cross_entropy(head(detach(h)), labels)

`model.patches` has the network see overlapping patches, each on its own. A patch tells those two rows and more below it from
others of the batch, drawn at random. The head is a probe of the mean over patches: labels train no layer. Nothing travels
back. The authors add 1e-11 to the probabilities; here their logarithms are computed as such.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.networks.patches import CutPatches
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.site import Site

SKIPPED = 1
"""Rows between a patch and the first one that it predicts: the next one overlaps with it."""


class GreedyInfoMax(LocalLoss):
    """Predicts patches from those above them; labels reach nothing but the probe."""

    class Config(MethodConfig):
        """Patches predict those below them, without labels (Greedy InfoMax, Löwe et al. 2019)."""

        name: Literal["greedy_infomax"] = "greedy_infomax"
        predictions: int = Field(5, ge=1, description="rows of patches that a patch predicts, as far as the image has them")
        negatives: int = Field(16, ge=1, description="patches of the batch, drawn at random, that each one is told from")

    compares_samples = True

    def __init__(self, site: Site, predictions: int, negatives: int) -> None:
        super().__init__(site)
        (self._grid,) = _grids(site)
        channels = site.shapes.output[1]
        reached = min(predictions, self._grid[0] - 1 - SKIPPED)
        self.predictors = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(reached))
        self._negatives = negatives

    @classmethod
    def check(cls, site: Site, **keys: Any) -> None:
        grids, got = _grids(site), "model.patches: got"
        if not grids:
            raise ValueError(
                f"{got} 0 with method.name=greedy_infomax, allowed: the side of patches that predict each other"
            )
        if grids[0][0] < 2 + SKIPPED:
            raise ValueError(f"{got} patches in {grids[0][0]} rows, allowed: in {2 + SKIPPED} or more, by smaller patches")

    def loss(self, sample: Sample) -> Tensor:
        with without_autocast(sample.h.device):
            patches = self._means(sample.h.float()).unflatten(1, self._grid)
            losses = [self._info_nce(patches, number) for number in range(len(self.predictors))]
        return torch.stack(losses).mean() + self.probe_loss(sample)

    @staticmethod
    def _means(patches: Tensor) -> Tensor:
        """[N, patches, C] of vectors or maps."""
        return patches.flatten(3).mean(3) if patches.dim() > 3 else patches

    def _info_nce(self, patches: Tensor, number: int) -> Tensor:
        """InfoNCE of all patches [N, rows, columns, C] with those `number` + 1 + SKIPPED rows below them."""
        distance = number + 1 + SKIPPED
        context = patches[:, :-distance].flatten(0, 2)
        targets = self.predictors[number](patches)
        every = targets.flatten(0, 2)
        drawn = torch.randint(every.shape[0], (context.shape[0], self._negatives), device=every.device)
        below = targets[:, distance:].flatten(0, 2)
        likeness = torch.cat([(context * below).sum(1, keepdim=True), (every[drawn] @ context[:, :, None])[:, :, 0]], 1)
        return functional.cross_entropy(likeness, torch.zeros_like(drawn[:, 0]))


def _grids(site: Site) -> list[tuple[int, int]]:
    """Rows and columns of the patches that the network cuts images into; empty where it does not."""
    layers = (*site.earlier_layers, *site.layers)
    return [one.grid for layer in layers for one in layer.module.modules() if isinstance(one, CutPatches)]
