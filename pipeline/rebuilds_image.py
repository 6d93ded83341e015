"""The base of methods that rebuild the network's input image from a block's activation (AlonNT/Thesis)."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.batch import IMAGE, LABELS
from greedypipe.pipeline.heads.decoder import build_decoder
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.networks.shapes import activation_shapes
from greedypipe.pipeline.site import Site

Tap = Literal["pre_pool", "post_pool"]


class RebuildsImageConfig(MethodConfig):
    """What is rebuilt, and from what."""

    shift: tuple[int, int] = Field(
        (0, 0),
        description="pixels by which the image to rebuild is rolled, down and to the right, by the first and by the last "
        "block; evenly in between, rounded down. AlonNT/Thesis: [5, 16]",
    )
    tap: Tap = Field(
        "post_pool",
        description="what the decoder sees: the block's output, or that of its last layer with weights (pre_pool)",
    )


class RebuildsImage(LocalLoss):
    """Holds the decoder, and gives the loss of its image."""

    needs = frozenset({LABELS, IMAGE})

    def __init__(self, site: Site, shift: tuple[int, int], tap: Tap) -> None:
        super().__init__(site)
        body = _up_to_weights(site.layers)
        self._tapped = (body[-1].module,) if tap == "pre_pool" and len(body) < len(site.layers) else ()
        shape = activation_shapes(body, site.shapes.input)[-1] if self._tapped else site.shapes.output
        self.decoder = build_decoder(site, shape)
        self._shift = int(np.linspace(*shift, num=site.num_blocks, dtype=int)[site.index])

    @classmethod
    def looks_inside(cls, **keys: Any) -> bool:
        return keys.get("tap") == "pre_pool"

    def taps(self) -> Sequence[nn.Module]:
        return self._tapped

    def image_loss(self, sample: Sample) -> Tensor:
        """Mean absolute difference between the decoded image and the rolled one, 0-dim fp32."""
        seen = sample.inner[0] if self._tapped else sample.h
        image = sample.extras[IMAGE]
        if self._shift:
            space = tuple(range(min(2, image.dim() - 1), image.dim()))
            image = torch.roll(image, (self._shift,) * len(space), space)
        return functional.l1_loss(self.decoder(seen).float(), image)


def _up_to_weights(layers: Sequence[Layer]) -> Sequence[Layer]:
    """The layers without those behind the last one that has parameters, such as a pool."""
    count = max((number for number, layer in enumerate(layers, 1) if layer.has_parameters), default=len(layers))
    return layers[:count]
