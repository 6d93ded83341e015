"""The whole configuration of a run, composed of each component's own section."""

from typing import Any

from pydantic import BaseModel, Field

from buffers.replay import BuffersConfig
from launch.faults import FaultsConfig
from launch.placement import PlacementConfig
from launch.ray_config import RayConfig
from pipeline.build import Sections, TrainingConfig
from pipeline.heads import HeadConfig
from pipeline.losses import LossConfig
from pipeline.networks.build import ModelConfig
from pipeline.optimizer import OptimizerConfig
from pipeline.partition import PartitionConfig
from workers.checkpoint import CheckpointConfig
from workers.data.config import DataConfig
from workers.debug import DebugConfig
from workers.feed import EvaluationConfig
from workers.links.interface import LinkConfig
from workers.meter import LoggingConfig


class FolderConfig(BaseModel, frozen=True, extra="forbid"):
    """Where a run writes."""

    folder: str = Field("runs", description="folder of all runs")
    name: str = Field("", description="this run's folder in it; empty: network-data-N with the next free N")


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """A run. Components receive their own section, never the whole."""

    run: FolderConfig = FolderConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    partition: PartitionConfig = PartitionConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    buffers: BuffersConfig = BuffersConfig()
    link: LinkConfig = LinkConfig()
    placement: PlacementConfig = PlacementConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    faults: FaultsConfig = FaultsConfig()
    ray: RayConfig = RayConfig()
    debug: DebugConfig = DebugConfig()

    def sections(self) -> Sections:
        """The sections that blocks are built from."""
        return Sections(self.model, self.partition, self.head, self.loss, self.optimizer, self.training)


def all_keys() -> dict[str, Any]:
    """Every key as section.key, with its pydantic field."""
    return {
        f"{section}.{key}": field
        for section, outer in RunConfig.model_fields.items()
        for key, field in outer.annotation.model_fields.items()  # type: ignore[union-attr]
    }
