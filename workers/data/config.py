"""The `data` section of the configuration: which images, cut into which batches."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

_FOLDER: Final[dict[str, Any]] = {"only_with": {"name": "image_folder"}}
_SYNTHETIC: Final[dict[str, Any]] = {"only_with": {"name": "synthetic"}}


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Choice of a data set and of its batches.

    A key that would change the samples but does not apply to the chosen set must keep its default.
    Keys that only say where the bytes come from (`root`, `download`, `loader_workers`, `memory_limit_mb`) may
    stay set when another set is chosen.
    """

    name: Literal["digits", "cifar10", "cifar100", "fashion_mnist", "mnist", "image_folder", "synthetic"] = Field(
        "digits", description="data set; digits and synthetic need no files and no network"
    )
    root: str = Field(
        "data",
        min_length=1,
        description="folder of the files; for image_folder it holds train/ and test/ (or val/)",
    )
    download: bool = Field(True, description="fetch cifar*, mnist and fashion_mnist when root lacks them")
    batch_size: int = Field(64, ge=2, description="samples per batch, in training and in evaluation")
    augment: Literal["none", "crop", "crop_flip"] = Field(
        "crop",
        description="change of the training images: random crop after padding by height // 8 pixels "
        "(RandomResizedCrop above memory_limit_mb); crop_flip also mirrors half of them, wrong for digits",
    )
    calibration_samples: int = Field(
        0, ge=0, description="training samples that no step trains on: launch/evaluate.py calibrates confidences with them"
    )
    drop_last: bool = Field(False, description="leave out the smaller last training batch of an epoch")
    image_size: int = Field(
        0,
        ge=0,
        json_schema_extra=_FOLDER,
        description="image_folder only: height and width in pixels; 0: those of the first training image",
    )
    shape: list[Annotated[int, Field(ge=1)]] = Field(
        [3, 32, 32],
        min_length=3,
        max_length=3,
        json_schema_extra=_SYNTHETIC,
        description="synthetic only: channels, height, width in pixels",
    )
    classes: int = Field(10, ge=2, json_schema_extra=_SYNTHETIC, description="synthetic only: number of classes")
    samples: int = Field(
        5000, ge=5, json_schema_extra=_SYNTHETIC, description="synthetic only: training samples; a fifth more is held out"
    )
    loader_workers: int = Field(
        0, ge=0, description="image_folder above memory_limit_mb: processes decoding ahead; 0 = none"
    )
    memory_limit_mb: int = Field(
        4096,
        ge=0,
        description="image_folder: decode once into memory up to this size (MiB), above it per batch",
    )
