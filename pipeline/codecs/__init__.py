"""Codecs of a block's output: what the next block receives, wherever it is hosted, and in which form it travels."""

from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from greedypipe.pipeline.batch import ACTIVATION, TensorSpec
from greedypipe.pipeline.codecs.interface import Codec, Form
from greedypipe.pipeline.codecs.plain import PlainCodec, as_it_is
from greedypipe.pipeline.codecs.vq import VectorQuantiser, vector_form
from greedypipe.pipeline.no_effect import no_effect
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.site import Site

__all__ = ["NO_CODEC", "Codec", "CodecConfig", "Form", "PlainCodec", "build_codec", "form_of", "objection"]


class CodecConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What becomes of a block's output before the next block sees it, in the same process as well as over a link."""

    name: Literal["none", "vq"] = Field(
        "none",
        description="vq: vectors of a learned codebook, of which numbers travel; a block's own head sees its exact output",
    )
    codes: int = Field(256, ge=2, le=32768, description="name=vq: vectors of a codebook; above 256 a number takes two bytes")
    groups: int = Field(1, ge=1, description="name=vq: parts of the channels, with a codebook each")
    decay: float = Field(0.99, ge=0, lt=1, description="name=vq: share of a codebook's averages that a batch leaves")

    @field_validator("codes", "groups", "decay")
    @classmethod
    def _name_uses_it(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("name") == "none" and value != cls.model_fields[str(info.field_name)].default:
            raise no_effect(f"got {value}, which has no effect with codec.name=none; it needs vq")
        return value


NO_CODEC = CodecConfig()
"""Outputs stay as they are."""


def objection(config: CodecConfig, shape: tuple[int, ...]) -> str:
    """Why there is no such codec for outputs of this shape; empty where there is one."""
    if config.name == "none":
        return ""
    if len(shape) > 3:
        return f"an output {' x '.join(map(str, shape))} of patches has none"
    channels = TensorSpec(ACTIVATION, shape, torch.float32).channels
    return f"groups={config.groups} do not divide {channels} channels" if channels % config.groups else ""


def build_codec(config: CodecConfig, site: Site, precision: Precision, seed: int, device: torch.device) -> Codec:
    """The codec of a block; what the last one gives out goes nowhere, and stays as it is. Draws no random number."""
    if config.name == "none" or site.is_last:
        return PlainCodec()
    form = vector_form(config.codes, config.groups, site.shapes.output, precision)
    return VectorQuantiser(form, config.decay, (seed, site.index), device)


def form_of(config: CodecConfig, shape: tuple[int, ...], precision: Precision) -> Form:
    """How a block's output of this shape travels."""
    if config.name == "none":
        return as_it_is(TensorSpec(ACTIVATION, shape, precision.activation_dtype, precision.channels_last))
    return vector_form(config.codes, config.groups, shape, precision)
