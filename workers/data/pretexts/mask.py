"""Inpainting (after Pathak et al., CVPR 2016, 1604.07379): a square is blotted out; what was there is the target."""

from dataclasses import replace

import torch

from greedypipe.pipeline.batch import IMAGE, MASK, TensorSpec
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.pretexts.interface import LoadedBatch, Pretext


class Mask(Pretext):
    """Sets a square of half the image's height, at a random place of every row, to 0: the mean colour.

    Extras: "image", the whole image, float32 [rows, C, H, W]; "mask", uint8 [rows, H, W], 1 in the square. Evaluation sees
    whole images.
    """

    @classmethod
    def extras(cls, info: DataInfo) -> tuple[TensorSpec, ...]:
        return (TensorSpec(MASK, info.input_shape[1:], torch.uint8),)

    @classmethod
    def objection(cls, info: DataInfo) -> str:
        fits = info.has_images and 2 <= info.input_shape[1] <= 2 * info.input_shape[2]
        return "" if fits else "only images have room for a square"

    def training(self, batch: LoadedBatch) -> LoadedBatch:
        rows, _, height, width = batch.images.shape
        side, generator = height // 2, self._generator(batch.batch_id)
        tops = torch.randint(0, height - side + 1, (rows, 1), generator=generator)
        lefts = torch.randint(0, width - side + 1, (rows, 1), generator=generator)
        down, across = torch.arange(height)[None] - tops, torch.arange(width)[None] - lefts
        inside = ((down >= 0) & (down < side))[:, :, None] & ((across >= 0) & (across < side))[:, None]
        images = batch.images.masked_fill(inside[:, None], 0.0)
        return replace(batch, images=images, extras={**batch.extras, IMAGE: batch.images, MASK: inside.to(torch.uint8)})
