"""Rotation (Gidaris et al., ICLR 2018, 1803.07728): images are turned by a quarter turn or more; the angle is the target."""

from dataclasses import replace
from typing import Final

import torch

from greedypipe.pipeline.batch import ROTATION, TensorSpec
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.pretexts.interface import LoadedBatch, Pretext

ANGLES: Final = 4


class Rotation(Pretext):
    """Turns every row by 0 to 3 quarter turns, counter-clockwise, after its augmentation.

    Extra "rotation": int64 [rows], the quarter turns. They are drawn at random; with four views of a sample, as the authors
    show it, each view gets another angle. Evaluation sees images upright.
    """

    only_moves = True

    @classmethod
    def extras(cls, info: DataInfo) -> tuple[TensorSpec, ...]:
        return (TensorSpec(ROTATION, (), torch.int64),)

    @classmethod
    def objection(cls, info: DataInfo) -> str:
        fits = info.has_images and info.input_shape[1] == info.input_shape[2]
        return "" if fits else "only square images can be turned"

    def training(self, batch: LoadedBatch) -> LoadedBatch:
        rows = len(batch.images)
        turns = torch.arange(rows) % ANGLES
        if self._views != ANGLES:
            turns = torch.randint(0, ANGLES, (rows,), generator=self._generator(batch.batch_id))
        images = torch.empty_like(batch.images)
        for angle in range(ANGLES):
            chosen = (turns == angle).nonzero()[:, 0]
            images[chosen] = torch.rot90(batch.images.index_select(0, chosen), angle, (2, 3))
        return replace(batch, images=images, extras={**batch.extras, ROTATION: turns})
