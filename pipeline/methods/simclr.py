"""SimCLR (Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020, 2002.05709).

    loss = contrast(projection(h), number of the sample) + cross_entropy(head(detach(h)), labels)

The contrast is NT-Xent: the views of a sample attract each other and are drawn away from all other rows of the batch, the
more of which there are, the better. `data.views=2` gives the views. The head is a probe: labels train no layer. Nothing
travels back. With `method.name=overlap` over it, it is LoCo (Xiong et al., NeurIPS 2020, 2008.01342) with a cut between any
two layers.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from greedypipe.pipeline.heads.projection import contrast_projection
from greedypipe.pipeline.losses import supervised_contrast
from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample
from greedypipe.pipeline.site import Site


class SimClr(LocalLoss):
    """Contrast between the views of samples; labels reach nothing but the probe."""

    class Config(MethodConfig):
        """Contrast between views of samples, without labels (SimCLR, Chen et al. 2020)."""

        name: Literal["simclr"] = "simclr"
        temperature: float = Field(0.5, gt=0, allow_inf_nan=False, description="of the similarities; less is stricter")
        features: int = Field(128, ge=1, description="outputs of the projection that rows are compared in")

    views: ClassVar[int] = 2
    compares_samples = True

    def __init__(self, site: Site, temperature: float, features: int) -> None:
        super().__init__(site)
        self.projection = contrast_projection(site, features)
        self._temperature = temperature

    def loss(self, sample: Sample) -> Tensor:
        rows = self.projection(sample.h)
        samples = torch.arange(rows.shape[0], device=rows.device) // self.task.views
        return supervised_contrast(rows, samples, self._temperature) + self.probe_loss(sample)
