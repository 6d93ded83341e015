"""The keys of the `data` section that every data set has: how its samples are cut into batches and changed."""

from typing import Literal

from pydantic import BaseModel, Field

Augment = Literal["none", "crop", "crop_flip"]


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Which images, cut into which batches."""

    name: str = Field(description="data set")
    batch_size: int = Field(64, ge=2, description="samples per batch, in training and in evaluation")
    augment: Augment = Field(
        "crop",
        description="random change of the training images: crop: move by up to height // 8 pixels (RandomResizedCrop for "
        "a folder above memory_limit_mb); crop_flip: also mirror half of them, which is wrong for digits",
    )
    calibration_samples: int = Field(
        0, ge=0, description="training samples to keep back, with which launch/evaluate.py calibrates confidences"
    )
    drop_last: bool = Field(False, description="leave out the smaller last training batch of an epoch")
    loader_workers: int = Field(
        0, ge=0, le=1024, description="processes that read batches ahead, of what is not in memory; 0: none"
    )
