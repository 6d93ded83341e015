"""The sections of the configuration that blocks are built from."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from greedypipe.pipeline.codecs import NO_CODEC, CodecConfig
from greedypipe.pipeline.feedback import DEFAULT_FEEDBACK, FeedbackConfig
from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.method import MethodConfig
from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.optimizer import OptimizerConfig
from greedypipe.pipeline.partition import PartitionConfig


class TrainingConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Length, seed and numerics of a run."""

    epochs: int = Field(10, ge=1, description="length of the run: epochs that every block trains for")
    schedule: Literal["together", "one_by_one"] = Field(
        "together",
        description="together: all blocks train at once; one_by_one: a block trains when those before it have, and these "
        "stand still, so that the run has as many times the epochs as blocks",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of initial weights, shuffling, augmentation and dropout")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of every label's probability that all classes have alike in cross-entropies"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: mixed precision with torch's autocast; activations are sent in bf16"
    )
    channels_last: bool = Field(True, description="store images and feature maps in NHWC order (torch's channels_last)")
    compile: Literal["none", "inductor"] = Field(
        "none", description="inductor: compile each block with torch.compile at its first batch; needs g++"
    )
    graphs: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on: start the work of each block as two CUDA graphs per batch, where Python takes longer than the GPU; "
        "off: operation by operation; auto: off, until `make gpu` has shown that the bits are the same",
    )
    deterministic: bool = Field(
        False,
        description="on GPUs compute only what torch repeats bit for bit, which may be slower, and fail at anything else",
    )


@dataclass(frozen=True)
class Sections:
    """The configuration sections that blocks are built from; `auxiliary` is None where it is `optimizer` again."""

    model: ModelConfig
    partition: PartitionConfig
    head: HeadConfig
    method: MethodConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    feedback: FeedbackConfig = DEFAULT_FEEDBACK
    auxiliary: OptimizerConfig | None = None
    codec: CodecConfig = NO_CODEC
