"""No codec: outputs are given out as they are."""

from dataclasses import dataclass

from torch import Tensor

from greedypipe.pipeline.batch import ACTIVATION, TensorSpec
from greedypipe.pipeline.codecs.interface import Codec, Form


class PlainCodec(Codec):
    """Gives out what it gets."""

    def give_out(self, h: Tensor, *, learns: bool = False) -> Tensor:
        self.packed = {ACTIVATION: h}
        return h


@dataclass(frozen=True)
class _PlainForm:
    specs: tuple[TensorSpec, ...]

    def decode(self, *tensors: Tensor) -> Tensor:
        (h,) = tensors
        return h


def as_it_is(spec: TensorSpec) -> Form:
    """The form of an output that travels as one tensor."""
    return _PlainForm((spec,))
