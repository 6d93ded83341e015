"""Step 8d: a stage that dies is named by the others, and all processes are gone soon."""

import time
from functools import partial
from typing import Any

from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import placed
from tests.gpu.runs import run as run_whole

STRUCK = 1
KEYS = ("training.epochs=1000", "logging.interval_steps=1", "faults.heartbeat_timeout_s=4")
FAULT_STEP = 30
SOON_S = 15.0


def run(found: Facts, setting: Setting) -> None:
    found.attempt("all ended, cause named", partial(_struck, found, setting))


def _struck(found: Facts, setting: Setting) -> dict[str, Any]:
    faults = ["debug.fault=exit", f"debug.fault_stage={STRUCK}", f"debug.fault_step={FAULT_STEP}"]
    outcome = run_whole(placed(setting, *KEYS, *faults), 3, setting, "kill")
    ended = time.time()
    last = max(record.unix_s for record in outcome.records(STRUCK))
    seconds = round(ended - last, 2)
    assert outcome.exit_codes[STRUCK] == 17 and all(outcome.exit_codes), outcome.exit_codes
    said = [line for text in outcome.printed for line in text.splitlines() if line.startswith("greedypipe: ")]
    assert any(f"stage {STRUCK}" in line and "died" in line for line in said), said
    assert seconds < SOON_S, f"the processes ended only {seconds} s later"
    found.row("failure", what="a stage dies: until all processes have ended", seconds=seconds)
    return {"said": said[:1]}
