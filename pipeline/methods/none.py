"""No learning: layers keep their random initial weights, and the head is a probe. The lower bounds of AlonNT/Thesis.

The last block learns by cross-entropy, or with `last_block` false its classifier alone.
"""

from typing import Any, Literal

from pydantic import Field

from greedypipe.pipeline.method import Method, MethodConfig, TaskLoss
from greedypipe.pipeline.site import Site


class Untrained(TaskLoss):
    """Random features; only the head learns."""

    class Config(MethodConfig):
        """No learning: layers stay random, only the head learns (the lower bounds)."""

        name: Literal["none"] = "none"
        last_block: bool = Field(True, description="whether the last block's layers learn; false: the classifier alone")

    trains_layers = False

    def __init__(self, site: Site, last_block: bool = True) -> None:
        super().__init__(site)

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return TaskLoss(site) if keys.get("last_block", True) else cls(site)
