"""Step 8c: a run that loses a stage, and goes on from its newest checkpoint, leaves the bits of one that never did."""

from functools import partial
from typing import Any

from greedypipe.launch.checkpoints.trained_network import network_state
from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import assert_equal, placed, well
from tests.gpu.runs import run as run_whole

EPOCHS, INTERVAL, FAULT_STEP = 2, 3, 20
KEYS = (f"training.epochs={EPOCHS}", f"checkpoint.interval_steps={INTERVAL}")
FAULT = (
    "debug.fault=exit",
    "debug.fault_stage=1",
    f"debug.fault_step={FAULT_STEP}",
    "debug.slow_stage=0",
    "debug.slow_factor=3",
)


def run(found: Facts, setting: Setting) -> None:
    found.attempt("resumed equals uninterrupted", partial(_resumed, setting, []))
    if not setting.pretend:
        found.attempt("resumed with graphs", partial(_resumed, setting, ["training.graphs=on"]))


def _resumed(setting: Setting, more: list[str]) -> dict[str, Any]:
    """The run that is interrupted has no graphs: scripted faults do not go with them, and the bits are the same."""
    overrides, name = placed(setting, *KEYS), f"resume{len(more)}"
    whole = well(run_whole(overrides, 2, setting, f"{name}_whole"))
    broken = run_whole([*overrides, *FAULT], 2, setting, name)
    assert all(broken.exit_codes), f"the fault did not strike: {broken.exit_codes}"
    resumed = well(run_whole([*overrides, *more], 2, setting, name, goes_on=True))
    began = resumed.summary["began_at_batch_id"]
    assert began >= INTERVAL, "it began from the start"
    assert_equal(network_state(whole.folder), network_state(resumed.folder))
    return {"began_at_batch_id": began}
