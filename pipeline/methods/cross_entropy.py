"""Decoupled greedy learning: the task's loss through the auxiliary head (Belilovsky et al., ICML 2020, Algorithm 1).

    loss = cross_entropy(head(h), labels)

Nothing travels back. Cost: forward and backward of the head.
"""

from typing import Literal

from greedypipe.pipeline.method import MethodConfig, TaskLoss


class CrossEntropy(TaskLoss):
    """DGL's objective."""

    class Config(MethodConfig):
        """Decoupled greedy learning (DGL)."""

        name: Literal["cross_entropy"] = "cross_entropy"
