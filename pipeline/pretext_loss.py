"""The base of methods that learn a pretext task: a target that the data give without labels."""

from abc import abstractmethod

from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class PretextConfig(MethodConfig):
    """How much a block learns from labels."""

    weight: float = Field(
        1.0, ge=0, le=1, description="share of the pretext task; the rest is cross-entropy. 1: labels train the probe alone"
    )


class PretextLoss(LocalLoss):
    """weight * pretext + (1 - weight) * cross_entropy(head(h), labels); at weight 1 the head is a probe, at 0 there is no
    pretext."""

    def __init__(self, site: Site, weight: float) -> None:
        super().__init__(site)
        self._weight = weight

    @abstractmethod
    def pretext_loss(self, sample: Sample) -> Tensor:
        """The loss of the task without labels, 0-dim fp32."""

    def loss(self, sample: Sample) -> Tensor:
        if self._weight == 1:
            return self.pretext_loss(sample) + self.probe_loss(sample)
        cross_entropy = self.task.loss(self.head(sample.h), sample.labels)
        if not self._weight:
            return cross_entropy
        return self._weight * self.pretext_loss(sample) + (1 - self._weight) * cross_entropy
