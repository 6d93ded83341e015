"""The whole configuration of a run, composed of each component's own section."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.pipeline.build import Sections, TrainingConfig
from greedypipe.pipeline.heads import HEAD_FAMILY
from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.method import MethodConfig
from greedypipe.pipeline.methods import METHOD_FAMILY
from greedypipe.pipeline.networks.build import ModelConfig
from greedypipe.pipeline.optimizer import OptimizerConfig
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.workers.around.scripted_faults import DebugConfig
from greedypipe.workers.block_files import CheckpointConfig
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.feed import EvaluationConfig
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.placement import PlacementConfig
from greedypipe.workers.telemetry.meter import LoggingConfig


class FolderConfig(BaseModel, frozen=True, extra="forbid"):
    """Where a run writes."""

    folder: str = Field("runs", description="folder of all runs")
    name: str = Field("", description="this run's folder in it; empty: network-data-N with the next free N")


class FaultsConfig(BaseModel, frozen=True, extra="forbid"):
    """When a stage counts as lost, and what follows."""

    policy: Literal["restart", "isolate"] = Field(
        "restart",
        description="restart: a lost stage ends the run, which the launcher may start again; isolate: it is started again "
        "alone, and the others wait (fifo) or go on (replay); stages on CPUs",
    )
    max_restarts: int = Field(
        3,
        ge=0,
        description="isolate: how often a process is started again before the run ends",
        json_schema_extra={"only_with": {"policy": "isolate"}},
    )
    timeout_s: float = Field(300.0, gt=0, description="deadline of every wait of one stage for another, in seconds")
    heartbeat_timeout_s: float = Field(10.0, ge=1, description="seconds without a sign of life after which a stage hangs")
    hang_timeout_s: float = Field(120.0, ge=1, description="seconds on one batch after which a stage hangs")

    def comes_back(self, incarnation: int) -> bool:
        """Whether a process that has been started again alone `incarnation` times may be so once more."""
        return self.policy == "isolate" and incarnation < self.max_restarts


class RayConfig(BaseModel, frozen=True, extra="forbid"):
    """How launch/ray_run.py uses a cluster; has no effect elsewhere."""

    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="Ray's: PACK: neighbours on one node where they fit; SPREAD: on many; STRICT_*: or not at all"
    )
    cpus: float = Field(1.0, gt=0, description="CPUs that every process reserves; stage 0 one more per data.loader_workers")
    start_timeout_s: float = Field(60.0, gt=0, description="seconds to wait for the reserved resources to be free")
    max_failures: int = Field(0, ge=0, description="how often a failed run is started again, from its newest checkpoint")


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """A run. Components receive their own section, never the whole."""

    run: FolderConfig = FolderConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    partition: PartitionConfig = PartitionConfig()
    head: Annotated[HeadConfig, HEAD_FAMILY] = HEAD_FAMILY.default()
    method: Annotated[MethodConfig, METHOD_FAMILY] = METHOD_FAMILY.default()
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
        return Sections(self.model, self.partition, self.head, self.method, self.optimizer, self.training)


def all_keys() -> dict[str, Any]:
    """Every key as section.key, with its pydantic field."""
    return {
        f"{section}.{key}": field
        for section, outer in RunConfig.model_fields.items()
        for key, field in outer.annotation.model_fields.items()  # type: ignore[union-attr]
    }
