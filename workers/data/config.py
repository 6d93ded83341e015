"""The keys of the `data` section that every data set has: how its samples are cut into batches and changed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from greedypipe.pipeline.no_effect import no_effect
from greedypipe.workers.user_path import UserPath

Augment = Literal["none", "crop", "crop_flip", "resized_crop", "resized_crop_flip"]
PretextName = Literal["none", "rotation", "grey", "mask"]


class DataConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Which images, cut into which batches."""

    name: str = Field(description="data set")
    batch_size: int = Field(64, ge=2, description="samples per batch, in training and in evaluation")
    augment: Augment = Field(
        "crop",
        description="random change of the training images: crop: move by up to height // 8 pixels (RandomResizedCrop for "
        "a folder above memory_limit_mb); resized_crop: enlarge a part, three quarters of the area or more; ..._flip: also "
        "mirror half of them, which is wrong for digits",
    )
    views: Literal[1, 2, 4] = Field(
        1, description="differently augmented views of every sample in a training batch, for contrastive methods"
    )
    pretext: PretextName = Field(
        "none",
        description="what the network sees in place of the image, with a target without labels: rotation: turned by quarter "
        "turns (views=4: by all four); grey: without colours; mask: with a square blotted out",
    )
    validation: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="training samples to keep back and to evaluate the run on, so that the most accurate checkpoint is not "
        "chosen on the test part: a share below 1, or a number of samples; 0: evaluate on the test part",
    )
    calibration_samples: int = Field(
        0, ge=0, description="training samples to keep back, with which launch/evaluate.py calibrates confidences"
    )
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        (), description="of the pixels (bytes divided by 255) per channel, subtracted; []: the data set's own"
    )
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="of the pixels (bytes divided by 255) per channel, by which they are divided; []: the data set's own"
    )
    order: Literal["shuffled", "curriculum", "anti_curriculum"] = Field(
        "shuffled",
        description="shuffled: all samples once per epoch; curriculum: the easiest first, then more and more of them; "
        "anti_curriculum: the hardest first",
    )
    difficulty: UserPath = Field(
        "", description="order=(anti_)curriculum: .npy file that `greedypipe evaluate RUN --difficulty FILE` has written"
    )
    pacing_start: float = Field(0.04, gt=0, le=1, description="order=(anti_)curriculum: share of the samples at first")
    pacing_growth: float = Field(
        1.9, gt=1, le=1000, description="order=(anti_)curriculum: factor on that share, until it is 1"
    )
    pacing_steps: int = Field(100, ge=1, description="order=(anti_)curriculum: batches between two growths")
    drop_last: bool = Field(False, description="leave out the smaller last training batch of an epoch")
    loader_workers: int = Field(
        0, ge=0, le=1024, description="processes that read batches ahead, of what is not in memory; 0: none"
    )

    @field_validator("difficulty", "pacing_start", "pacing_growth", "pacing_steps")
    @classmethod
    def _order_uses_it(cls, value: Any, info: ValidationInfo) -> Any:
        order = info.data.get("order")
        if order == "shuffled" and value != cls.model_fields[str(info.field_name)].default:
            raise no_effect(f"got {value!r}, which has no effect with data.order=shuffled; it needs curriculum")
        return value

    @field_validator("validation")
    @classmethod
    def _validation_is_share_or_count(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError(f"got {value}, allowed: a share below 1, or a whole number of samples")
        return value

    def validation_samples(self, num_samples: int) -> int:
        """How many of so many training samples are kept back for validation: at least one, where any are."""
        if self.validation >= 1:
            return int(self.validation)
        return max(1, round(self.validation * num_samples)) if self.validation else 0
