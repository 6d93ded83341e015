"""A method of your own, which config.yaml names: how each block but the last learns."""

from torch import Tensor

from greedypipe import LocalLoss, Sample, Site


class Focal(LocalLoss):
    """Cross-entropy that counts hard samples more (Lin et al., ICCV 2017, equation 4)."""

    def __init__(self, site: Site, gamma: float = 2.0) -> None:
        super().__init__(site)
        self._gamma = gamma

    def loss(self, sample: Sample) -> Tensor:
        """The loss of a batch, 0-dim fp32; `self.head` is the head that section `head` asks for."""
        each = self.task.loss(self.head(sample.h), sample.labels, reduction="none")
        return ((1 - (-each).exp()) ** self._gamma * each).mean()
