"""The section of the configuration that a run on a Ray cluster reads."""

from typing import Literal

from pydantic import BaseModel, Field


class RayConfig(BaseModel, frozen=True, extra="forbid"):
    """How launch/ray_run.py uses a cluster; has no effect elsewhere."""

    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="Ray's: PACK: neighbours on one node where they fit; SPREAD: on many; STRICT_*: or not at all"
    )
    cpus: float = Field(1.0, gt=0, description="CPUs that every process reserves; stage 0 one more per data.loader_workers")
    start_timeout_s: float = Field(60.0, gt=0, description="seconds to wait for the reserved resources to be free")
    max_failures: int = Field(0, ge=0, description="how often a failed run is started again, from its newest checkpoint")
