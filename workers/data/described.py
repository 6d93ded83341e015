"""The description of a set that is held as two parts: classes, shape and normalisation follow from the samples."""

import math
from typing import Final

import torch
from torch import Tensor

from greedypipe.workers.data.info import DataInfo, numbered
from greedypipe.workers.data.own_samples import Part, evenly_spaced, form

MOST_MEASURED: Final = 2048
"""Training samples, evenly spaced, of which mean and standard deviation are taken."""


def described(train: Part, test: Part, key: str, fingerprint: str) -> DataInfo:
    """Describes a set by its parts; reads up to MOST_MEASURED training samples.

    Bytes are normalised by mean and standard deviation of the training part: per channel, of vectors by one of each.
    Floating-point numbers are taken as normalised already.

    Args:
        key: The set's, as errors begin.

    Raises:
        ValueError: One line: labels have gaps or occur in the test part alone, the parts have different shapes, or a
            channel is constant.
    """
    num_classes = _count_classes(train.labels, test.labels, key)
    classes = train.classes if len(train.classes) == num_classes else numbered(num_classes)
    samples, _ = train.gather(evenly_spaced(len(train), MOST_MEASURED))
    held_out, _ = test.gather(torch.tensor([0]))
    if (samples.shape[1:], samples.dtype) != (held_out.shape[1:], held_out.dtype):
        raise ValueError(f"{key}: test: got images {form(held_out[0])}, allowed: {form(samples[0])}, as in train")
    shape = tuple(samples.shape[1:])
    channels = samples.transpose(0, 1) if len(shape) > 1 else samples[None]
    mean, std, full_scale = (0.0,) * len(channels), (1.0,) * len(channels), 1.0
    if samples.dtype == torch.uint8:
        mean, std = zip(*(_mean_and_std(channel, key) for channel in channels), strict=True)
        full_scale = 255.0
    return DataInfo(
        shape,
        classes,
        len(train),
        len(test),
        mean,
        std,
        full_scale,
        class_samples=tuple(train.labels.bincount().tolist()),
        fingerprint=fingerprint,
    )


def _count_classes(train: Tensor, test: Tensor, key: str) -> int:
    """Number of classes; raises ValueError where labels are not 0 to classes - 1, each of them in `train`."""
    present = train.unique()
    if len(present) < 2:
        raise ValueError(f"{key}: train: got only the label {present.item()}, allowed: two classes or more")
    if not torch.equal(present, torch.arange(len(present))):
        raise ValueError(
            f"{key}: train: got {len(present)} different labels from {present[0]} to {present[-1]}, "
            f"allowed: 0 to {len(present) - 1}"
        )
    if test.min() < 0 or test.max() >= len(present):
        raise ValueError(
            f"{key}: test: got labels {test.min()} to {test.max()}, allowed: 0 to {len(present) - 1}, as in train"
        )
    return len(present)


def _mean_and_std(levels: Tensor, key: str) -> tuple[float, float]:
    """Of bytes divided by 255; counted in integers, so that every host finds the same."""
    counts = enumerate(torch.bincount(levels.flatten(), minlength=256).tolist())
    total, first, second = map(sum, zip(*((n, n * level, n * level**2) for level, n in counts), strict=True))
    variance = total * second - first**2
    if variance == 0:
        raise ValueError(f"{key}: train: got a channel whose pixels are all {first // total}, allowed: channels that differ")
    return first / total / 255, math.sqrt(variance) / total / 255
