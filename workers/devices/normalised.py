"""Where the samples of stage 0 are normalised: where they are loaded, or, if they are bytes, on the GPU behind the copy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from greedypipe.pipeline.batch import ACTIVATION, IMAGE
from greedypipe.workers.data.augment import Prepare, as_stored, normalising
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.pretexts.registry import PRETEXTS
from greedypipe.workers.devices.side import Side

Tensors = Mapping[str, Tensor]


def as_they_are(tensors: Tensors) -> Tensors:
    """No-op."""
    return tensors


@dataclass(frozen=True)
class Normalising:
    """The two places where a stage's samples may be normalised, one of which does nothing.

    Attributes:
        prepare: Where a batch is made, on the host, maybe in another process.
        arrived: Where the tensors of a message have come to the stage's device. Does not wait for it.
    """

    prepare: Prepare
    arrived: Callable[[Tensors], Tensors] = as_they_are


def on_host(info: DataInfo) -> Normalising:
    """Samples leave the loader normalised."""
    return Normalising(normalising(info))


def on_device(config: DataConfig, info: DataInfo, device: torch.device, side: Side) -> Normalising:
    """Bytes leave the loader as they are stored, a quarter of the size; what cannot, leaves it normalised: floating-point
    samples, and those of pretext tasks that compute with normalised ones."""
    if not (info.has_bytes and PRETEXTS[config.pretext].only_moves):
        return on_host(info)
    return Normalising(as_stored, NormalisedBytes(info, device, side))


class NormalisedBytes:
    """Normalises on a device, with the bits of the CPU: by the operations of `augment.normalise`, in their order. On CUDA
    not yet run.

    Args:
        device: The stage's.
        side: Of the same stage.
    """

    def __init__(self, info: DataInfo, device: torch.device, side: Side) -> None:
        per_channel = (-1, *[1] * (len(info.input_shape) - 1))
        mean, std = (torch.tensor(each, dtype=torch.float32, device=device) for each in (info.mean, info.std))
        self._mean, self._std = mean.view(per_channel), std.view(per_channel)
        # A tensor there: CUDA multiplies by the reciprocal of a number of the host's, which gives other bits.
        self._full_scale = torch.tensor(info.full_scale, dtype=torch.float32, device=device)
        self._side = side

    def __call__(self, tensors: Tensors) -> Tensors:
        """The tensors of a message on the device, with samples in float32, in new memory of the stage's stream."""
        stored = tensors[ACTIVATION]
        if stored.dtype != torch.uint8:  # of the stage before
            return tensors
        samples = torch.empty_like(stored, dtype=torch.float32)
        self._side.run(lambda: self._normalise(stored, samples))
        # What only moves samples leaves no other image than the network's input.
        return {name: samples if name in (ACTIVATION, IMAGE) else tensor for name, tensor in tensors.items()}

    def _normalise(self, stored: Tensor, samples: Tensor) -> None:
        samples.copy_(stored).div_(self._full_scale).sub_(self._mean).div_(self._std)
