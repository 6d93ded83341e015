"""The whole configuration of a run, composed of each component's own section."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.pipeline.codecs import CodecConfig
from greedypipe.pipeline.feedback import FeedbackConfig, Reach
from greedypipe.pipeline.heads import HEAD_FAMILY, head_at
from greedypipe.pipeline.heads.head import HeadConfig
from greedypipe.pipeline.method import MethodConfig
from greedypipe.pipeline.methods import METHOD_FAMILY, method_class
from greedypipe.pipeline.networks import MODEL_FAMILY, ModelConfig
from greedypipe.pipeline.no_effect import NO_EFFECT, no_effect
from greedypipe.pipeline.optimizer import AUXILIARY_FAMILY, OPTIMIZER_FAMILY, OptimizerConfig, SameConfig
from greedypipe.pipeline.options import Refused, in_words, refusal
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.sections import Sections, TrainingConfig
from greedypipe.workers.around.scripted_faults import DebugConfig
from greedypipe.workers.block_files import CheckpointConfig
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.sets.registry import DATA_FAMILY
from greedypipe.workers.feed import EvaluationConfig
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.placement import PlacementConfig
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.user_path import UserPath

MOST_NAME_BYTES = 200
"""File systems take 255; names of files beside a run's folder are longer than its own."""


class FolderConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Where a run writes its files."""

    folder: UserPath = Field("runs", description="folder that holds all runs")
    name: str = Field("", description="name of this run's folder; empty: NETWORK-DATA-N with the next free number N")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        """A name that is a path would place, resume or tidy a run anywhere."""
        is_plain = value.isprintable() and "/" not in value and not value.startswith((".", "-", " "))
        if not is_plain or len(value.encode(errors="replace")) > MOST_NAME_BYTES:
            raise ValueError(
                f"got {value!r}, allowed: a name of at most {MOST_NAME_BYTES} bytes without '/', which begins with neither "
                "'.' nor '-'; the folder that holds all runs is run.folder"
            )
        return value

    @field_validator("folder")
    @classmethod
    def _can_be_opened(cls, value: str) -> str:
        if not value or "\0" in value:
            raise ValueError(f"got {value!r}, allowed: the path of a folder")
        return value


LONGEST_S = 1e6
"""Twelve days. Deadlines of milliseconds must fit into 32 bits."""


class FaultsConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """When a stage counts as lost, and what happens then."""

    policy: Literal["restart", "isolate"] = Field(
        "restart",
        description="when a stage is lost: restart: the run ends, and its launcher may start it again; isolate: only that "
        "stage starts again, while the others wait (fifo) or continue (replay); on CPUs only",
    )
    max_restarts: int = Field(3, ge=0, description="policy=isolate: restarts allowed per process before the run ends")
    timeout_s: float = Field(
        300.0, ge=1, le=LONGEST_S, description="seconds that a stage waits for another before it gives up"
    )
    heartbeat_timeout_s: float = Field(
        10.0, ge=1, le=LONGEST_S, description="seconds without a heartbeat after which a stage counts as lost"
    )
    hang_timeout_s: float = Field(
        120.0, ge=1, le=LONGEST_S, description="seconds on one batch after which a stage counts as lost"
    )

    @field_validator("max_restarts")
    @classmethod
    def _restarts_are_single(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("policy") == "restart" and value != cls.model_fields[str(info.field_name)].default:
            raise no_effect(f"got {value}, which has no effect with faults.policy=restart; it needs faults.policy=isolate")
        return value

    def comes_back(self, incarnation: int) -> bool:
        """Whether a process that has been started again alone `incarnation` times may be started once more."""
        return self.policy == "isolate" and incarnation < self.max_restarts


class RayConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """How launch/ray_run.py uses a Ray cluster; other commands ignore it."""

    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK",
        description="Ray's placement strategy: PACK: on as few nodes as possible; SPREAD: on as many as possible; "
        "STRICT_PACK: on one node or not at all; STRICT_SPREAD: on a node each or not at all",
    )
    cpus: float = Field(1.0, gt=0, description="CPUs to reserve per process; stage 0 reserves data.loader_workers more")
    start_timeout_s: float = Field(
        60.0, gt=0, le=LONGEST_S, description="seconds to wait until these CPUs and GPUs are free"
    )
    max_failures: int = Field(0, ge=0, description="times that a failed run is started again from its newest checkpoint")


class RunConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """The configuration of a run. Components receive their own sections, never the whole."""

    run: FolderConfig = FolderConfig()
    data: Annotated[DataConfig, DATA_FAMILY] = DATA_FAMILY.default()
    model: Annotated[ModelConfig, MODEL_FAMILY] = MODEL_FAMILY.default()
    partition: PartitionConfig = PartitionConfig()
    head: Annotated[HeadConfig, HEAD_FAMILY] = HEAD_FAMILY.default()
    method: Annotated[MethodConfig, METHOD_FAMILY] = METHOD_FAMILY.default()
    optimizer: Annotated[OptimizerConfig, OPTIMIZER_FAMILY] = OPTIMIZER_FAMILY.default()
    auxiliary: Annotated[SameConfig | OptimizerConfig, AUXILIARY_FAMILY] = Field(
        AUXILIARY_FAMILY.default(),
        description="Optimizer of the parts of a method that learn from feedback: synthesisers, critics, inverses.",
    )
    feedback: FeedbackConfig = FeedbackConfig()
    training: TrainingConfig = TrainingConfig()
    buffers: BuffersConfig = BuffersConfig()
    codec: CodecConfig = CodecConfig()
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
        auxiliary = self.auxiliary if isinstance(self.auxiliary, OptimizerConfig) else None
        return Sections(
            self.model,
            self.partition,
            self.head,
            self.method,
            self.optimizer,
            self.training,
            self.feedback,
            auxiliary,
            self.codec,
        )

    @field_validator("link")
    @classmethod
    def _links_may_round(cls, link: LinkConfig, info: ValidationInfo) -> LinkConfig:
        codec = info.data.get("codec")
        if codec and codec.name != "none" and link.dtype != "same":
            problem = f"got {link.dtype}, which has no effect with codec.name={codec.name}: numbers of vectors travel"
            raise refusal("link", [(("dtype",), link.dtype, problem)], NO_EFFECT)
        return link

    @field_validator("head")
    @classmethod
    def _blocks_have_heads(cls, head: HeadConfig) -> HeadConfig:
        refused: list[Refused] = []
        for index, keys in enumerate(head.by_block):
            try:
                if head_at(head, index).by_block:
                    refused.append((("by_block",), keys, f"entry {index}: got by_block once more, allowed: keys of a head"))
            except ValidationError as error:
                for one in error.errors():
                    words = one["msg"] if one["type"] == "refused" else in_words(one)
                    where = ".".join(map(str, one["loc"]))
                    refused.append((("by_block",), one["input"], f"entry {index}, {where}: {words}"))
        if refused:
            raise refusal("head", refused)
        return head

    @field_validator("feedback")
    @classmethod
    def _something_travels_back(cls, feedback: FeedbackConfig, info: ValidationInfo) -> FeedbackConfig:
        method = info.data.get("method")
        if method and feedback != FeedbackConfig() and method_class(method).reach is Reach.NONE:
            problem = f"got {list(feedback.delay)}, which has no effect with method.name={method.name}: nothing travels back"
            raise refusal("feedback", [(("delay",), feedback.delay, problem)], NO_EFFECT)
        return feedback

    @field_validator("placement")
    @classmethod
    def _replicas_can_share(cls, placement: PlacementConfig, info: ValidationInfo) -> PlacementConfig:
        problems = sharing_problems(placement.replicas, info.data.get("buffers"), info.data.get("data"))
        if problems:
            raise refusal("placement", [(("replicas",), placement.replicas, problem) for problem in problems])
        return placement

    @model_validator(mode="after")
    def _head_is_asked_for(self) -> Self:
        if self.head != HEAD_FAMILY.default() and method_class(self.method).own_head:
            why = f"which has no effect with method.name={self.method.name}: it has a head of its own"
            keys = [(key, getattr(self.head, key)) for key in sorted(self.head.model_fields_set)]
            raise refusal("head", [(("head", key), value, f"got {value}, {why}") for key, value in keys], NO_EFFECT)
        return self


def sharing_problems(replicas: tuple[int, ...], buffers: BuffersConfig | None, data: DataConfig | None) -> list[str]:
    """Reasons why the replicas of a stage could not share every batch. An invalid section is None, and not checked."""
    problems = []
    if max(replicas) > 1 and buffers and buffers.policy == "replay":
        problems.append(
            "got several replicas with buffers.policy=replay, allowed: fifo: replicas must all read the same batch next"
        )
    uneven = sorted({count for count in replicas if data and data.batch_size % count})
    if data and uneven:
        problems.append(f"got {', '.join(map(str, uneven))}, allowed: divisors of data.batch_size={data.batch_size}")
    return problems
