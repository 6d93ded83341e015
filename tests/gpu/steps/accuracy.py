"""Step 8e: two epochs of the bundled data reach what they reach on the CPU, within the noise of so short a run."""

from functools import partial
from typing import Any

from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import run as run_whole
from tests.gpu.runs import well

KEYS = ("data.name=digits", "data.batch_size=64", "model.name=vgg8b", "model.width=0.25", "training.epochs=2")
NOISE = 0.05
PROCESSES = 2


def run(found: Facts, setting: Setting) -> None:
    found.attempt("as accurate as on the CPU", partial(_both, found, setting))


def _both(found: Facts, setting: Setting) -> dict[str, Any]:
    devices = ("cpu",) if setting.pretend else ("cpu", "cuda")
    accuracy = {
        device: well(run_whole([*KEYS, f"placement.device={device}"], PROCESSES, setting, f"accuracy_{device}")).summary[
            "accuracy"
        ]["final"]
        for device in devices
    }
    for device, reached in accuracy.items():
        found.row("accuracy", device=device, accuracy=reached, epochs=2)
    spread = max(accuracy.values()) - min(accuracy.values())
    assert spread <= NOISE, f"{accuracy}: further apart than {NOISE}"
    return {"accuracy": accuracy}
