"""Colourisation (after Zhang et al., ECCV 2016, 1603.08511): the network sees grey images and finds the colours."""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from greedypipe.pipeline.batch import COLOURS, TensorSpec
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.pretexts.interface import LoadedBatch, Pretext

LUMA: Final = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue (ITU-R BT.601)."""


class Grey(Pretext):
    """Puts the brightness of the un-normalised image in all three channels, normalised like them; in evaluation as well.

    Extra "colours": the coloured image, float32 [rows, 3, H, W]. The authors predict classes of colours; here the target are
    the colours themselves.
    """

    @classmethod
    def extras(cls, info: DataInfo) -> tuple[TensorSpec, ...]:
        return (TensorSpec(COLOURS, info.input_shape, torch.float32),)

    @classmethod
    def objection(cls, info: DataInfo) -> str:
        fits = info.has_images and info.input_shape[0] == len(LUMA)
        return "" if fits else "only images of 3 channels have colours"

    def training(self, batch: LoadedBatch) -> LoadedBatch:
        return replace(batch, images=self._grey(batch.images), extras={**batch.extras, COLOURS: batch.images})

    def evaluation(self, batch: LoadedBatch) -> LoadedBatch:
        return replace(batch, images=self._grey(batch.images))

    def _grey(self, images: Tensor) -> Tensor:
        mean, std, luma = (torch.tensor(each).view(-1, 1, 1) for each in (self._info.mean, self._info.std, LUMA))
        brightness = ((images * std + mean) * luma).sum(1, keepdim=True)
        return (brightness - mean) / std
