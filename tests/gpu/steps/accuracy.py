"""Step 8e: a short training on the bundled data reaches what it reaches on the CPU, within the noise of so short a run."""

from functools import partial
from typing import Any

from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import run as run_whole
from tests.gpu.runs import well

EPOCHS = 5
KEYS = (
    "data.name=digits",
    "data.batch_size=32",
    "model.name=vgg8b",
    "model.width=0.25",
    f"training.epochs={EPOCHS}",
    "optimizer.lr=0.05",
    "optimizer.schedule=cosine",
)
"""Two epochs would end where accuracy is still steep, and rounding alone moves it by tenths."""
NOISE = 0.05
PROCESSES = 2


def run(found: Facts, setting: Setting) -> None:
    found.attempt("as accurate as on the CPU", partial(_both, found, setting))


def _both(found: Facts, setting: Setting) -> dict[str, Any]:
    devices, keys = (("cpu",), (*KEYS, "training.epochs=1")) if setting.pretend else (("cpu", "cuda"), KEYS)
    accuracy = {
        device: well(run_whole([*keys, f"placement.device={device}"], PROCESSES, setting, f"accuracy_{device}")).summary[
            "accuracy"
        ]["final"]
        for device in devices
    }
    for device, reached in accuracy.items():
        found.row("accuracy", device=device, accuracy=reached, epochs=EPOCHS)
    spread = max(accuracy.values()) - min(accuracy.values())
    assert spread <= NOISE, f"{accuracy}: further apart than {NOISE}"
    return {"accuracy": accuracy}
