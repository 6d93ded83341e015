"""What a campaign does to its runs: the run, the faults, and the trials drawn from them."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

STAGES = 3
RUN = (
    "data.name=digits",
    "data.batch_size=72",
    "data.drop_last=true",
    "model.name=vgg8b",
    "model.width=0.1",
    "partition.blocks=3",
    "training.epochs=12",
    "evaluation.every_epochs=12",
    "optimizer.lr=0.05",
    "optimizer.schedule=cosine",
    "checkpoint.interval_steps=12",
    "logging.interval_steps=1",
    "faults.heartbeat_timeout_s=3",
    "faults.timeout_s=20",
)
"""12 epochs of 19 steps."""
MOST_READS = 5
"""With replay: without a bound the stages behind one that stands still use up their budgets on its last few batches. Where
one is slow for the whole run, as stage 0 is that reads files, they would use them up so in any case: runs of that kind
differ by 14 points and more among themselves, and a loss could not be told from it. So there each batch is read once."""
FAULTS = (
    "kill -9",
    "SIGSTOP, SIGCONT",
    "SIGTERM",
    "exception",
    "full disk",
    "truncated checkpoint",
    "slow stage",
    "slow link",
    "SIGTERM to all groups",
    "damaged checkpoint",
    "killed in start-up",
    "killed at the end",
    "killed launcher",
    "full tmpfs",
)
EDGES = {
    "killed in start-up": ("begin", "receiver.before", "receiver.after", "sender.before", "sender.after", "first step"),
    "killed at the end": (
        "pass.before",
        "pass.after",
        "end.before",
        "end.after",
        "save.before",
        "save.after",
        "summary.before",
    ),
}
"""Where a process kills itself (benchmarks.campaign.edges), by fault."""
STREAMED = 0.25
"""Share of the trials that read image files, with loader processes."""
LOADERS = 2
FATAL = {"kill -9", "SIGTERM", "exception", "truncated checkpoint"}
SCRIPTED = {"exception": "raise", "full disk": "full_disk"}


@dataclass(frozen=True)
class Trial:
    """What is done to one run: `step` counts in the stage that is struck."""

    policy: str
    recovery: str
    fault: str
    stage: int
    step: int
    point: str = ""
    """Of benchmarks.campaign.edges, where the fault is at one."""
    is_streamed: bool = False
    """Whether stage 0 reads image files, with loader processes."""

    def data(self, images: Path) -> list[str]:
        """Of every attempt, and of the runs that it is compared with.

        Args:
            images: A folder that `write_images` has filled.
        """
        if not self.is_streamed:
            return []
        return ["data.name=image_folder", f"data.root={images}", "data.memory_limit_mb=0", f"data.loader_workers={LOADERS}"]

    @property
    def overrides(self) -> list[str]:
        """Of the first attempt."""
        if self.fault in SCRIPTED:
            kind = SCRIPTED[self.fault]
            return [f"debug.fault={kind}", f"debug.fault_stage={self.stage}", f"debug.fault_step={self.step}"]
        return self.slowness

    @property
    def strikes_itself(self) -> bool:
        """Whether nobody has to strike it from outside."""
        return bool(self.slowness or self.point) or self.fault == "full tmpfs"

    @property
    def damages(self) -> bool:
        """Whether its newest checkpoint is damaged before it goes on."""
        return self.fault in ("truncated checkpoint", "damaged checkpoint")

    @property
    def links(self) -> tuple[str, ...]:
        """Of every attempt, and of the runs that it is compared with."""
        if self.policy == "fifo":
            return ("buffers.policy=fifo",)
        is_slow = bool(self.slowness) or self.is_streamed
        return "buffers.policy=replay", f"buffers.max_reuse={1 if is_slow else MOST_READS}"

    @property
    def slowness(self) -> list[str]:
        """Of every attempt, and of the runs that it is compared with."""
        if self.fault == "slow stage":
            return [f"debug.slow_stage={self.stage}", "debug.slow_factor=3"]
        return [f"debug.slow_stage={self.stage}", "debug.slow_link_s=0.02"] if self.fault == "slow link" else []


def draw(count: int, seed: int, last_step: int, recoveries: Sequence[str]) -> list[Trial]:
    """Every fault about as often as every other, at random moments in random stages."""
    generator, faults = random.Random(seed), [fault for fault in FAULTS if fault != "full tmpfs" or os.geteuid() == 0]
    return [_draw_one(generator, faults[number % len(faults)], last_step, recoveries) for number in range(count)]


def _draw_one(generator: random.Random, fault: str, last_step: int, recoveries: Sequence[str]) -> Trial:
    trial = Trial(
        generator.choice(("fifo", "replay")),
        generator.choice(recoveries),
        fault,
        generator.randrange(STAGES),
        generator.randrange(2, last_step),
        generator.choice(EDGES[fault]) if fault in EDGES else "",
        generator.random() < STREAMED,
    )
    # Some points are in the first or the last stages alone.
    if trial.point.startswith("summary"):
        return replace(trial, stage=0)
    if trial.point.startswith("receiver"):
        return replace(trial, stage=max(1, trial.stage))
    return replace(trial, stage=min(trial.stage, STAGES - 2)) if trial.point.startswith("sender") else trial


def draw_few(seed: int, last_step: int) -> list[Trial]:
    """One of each fault that ends a run, with FIFO links, and one of those with isolation in both policies."""
    drawn = draw(len(FAULTS), seed, last_step, ("restart",))
    few = [replace(trial, policy="fifo", is_streamed=False) for trial in drawn if trial.fault in FATAL]
    return few + [replace(few[0], recovery="isolate", policy=policy) for policy in ("fifo", "replay")]
