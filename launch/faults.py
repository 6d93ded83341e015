"""When a stage counts as lost, what follows, and the exit codes that say how a process has ended."""

from typing import Literal

from pydantic import BaseModel, Field

FAILED, WRONG_CONFIGURATION, INTERRUPTED = 1, 2, 130
REQUEUE = 75
"""Exit code of a run that has saved itself and wants to be started again (EX_TEMPFAIL of sysexits.h)."""
ALONE = 76
"""Exit code of a process that has failed by itself and may be started again alone (launch.keeper)."""


class FaultsConfig(BaseModel, frozen=True, extra="forbid"):
    """When a stage counts as lost, and what follows."""

    policy: Literal["restart", "isolate"] = Field(
        "restart",
        description="restart: a lost stage ends the run, which the launcher may start again; isolate: it is started again "
        "alone, and the others wait (fifo) or go on (replay); stages on CPUs",
    )  # fmt: skip
    max_restarts: int = Field(
        3, ge=0, description="isolate: how often a process is started again before the run ends",
        json_schema_extra={"only_with": {"policy": "isolate"}},
    )  # fmt: skip
    timeout_s: float = Field(300.0, gt=0, description="deadline of every wait of one stage for another, in seconds")
    heartbeat_timeout_s: float = Field(10.0, ge=1, description="seconds without a sign of life after which a stage hangs")
    hang_timeout_s: float = Field(120.0, ge=1, description="seconds on one batch after which a stage hangs")
