"""Prediction alone (Nokland & Eidnes, *Training Neural Networks with Local Error Signals*, 1901.06656, "pred").

    loss = cross_entropy(linear(pool(h)), labels)

One half of `predsim`, through the paper's own head whatever section `head` says: `cross_entropy` with `head.name=linear`,
bit for bit. Nothing travels back.
"""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from greedypipe.pipeline.heads import HEADS
from greedypipe.pipeline.heads.linear import MAX_LINEAR_FEATURES
from greedypipe.pipeline.method import MethodConfig, TaskLoss
from greedypipe.pipeline.site import Site


class Pred(TaskLoss):
    """Cross-entropy through pooling and one linear layer."""

    class Config(MethodConfig):
        """Prediction alone, a half of predsim: cross-entropy through pooling and a linear layer (Nokland & Eidnes)."""

        name: Literal["pred"] = "pred"
        features: int = Field(
            MAX_LINEAR_FEATURES, ge=1, description="most inputs of the linear layer; Nokland & Eidnes: 2048 for vgg8b"
        )

    own_head = True

    def __init__(self, site: Site, features: int) -> None:
        super().__init__(replace(site, make_head=lambda at: HEADS["linear"].build(at, features=features)))
