"""What the tests with real processes share: a tiny run, and how its outcome is compared."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_host.outcome import Outcome

SHORT = ("data.name=digits", "data.batch_size=128", "training.epochs=1", "optimizer.lr=0.05", "faults.timeout_s=30")
"""A run of any network."""
TINY = (*SHORT, "model.name=vgg8b", "model.width=0.1")
"""12 steps, the last of 30 samples, and an evaluation pass whose last batch is uneven too."""


def run_pipeline(
    overrides: Sequence[str], num_processes: int, tmp_path: Path, timeout_s: float = 60, absent: Sequence[int] = ()
) -> Outcome:
    """Runs a pipeline in the next free folder below `tmp_path`; see launch.on_host.local_run."""
    return local_run.run_pipeline(
        overrides, num_processes, tmp_path / f"run{len(list(tmp_path.iterdir()))}", timeout_s, absent
    )


def assert_equal_states(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Every tensor has the same bits, under the same names in the same order."""
    assert list(left) == list(right)
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def exported(outcome: Outcome) -> dict[str, Tensor]:
    """The network that a run has left."""
    return network_state(outcome.folder)
