"""No learning: layers keep their random initial weights, and the head is a probe. The lower bound of AlonNT/Thesis."""

from typing import Literal

from greedypipe.pipeline.method import MethodConfig, TaskLoss


class Untrained(TaskLoss):
    """Random features; only the head learns."""

    class Config(MethodConfig):
        """No learning: layers stay random, only the head learns (the lower bound)."""

        name: Literal["none"] = "none"

    trains_layers = False
