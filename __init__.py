"""greedypipe: pipeline-parallel training without backward locking.

>>> run = greedypipe.train("configs/digits.yaml", "training.epochs=3", stages=4)
>>> run.network(), run.metrics()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greedypipe.launch.api import Run, RunFailed, train
    from greedypipe.launch.config.errors import ConfigError
    from greedypipe.pipeline.feedback import Back, Reach
    from greedypipe.pipeline.method import LocalLoss, Method, Sample, Turn
    from greedypipe.pipeline.site import Site
    from greedypipe.pipeline.task import Task

__version__ = "0.2.0"
__all__ = [
    "Back",
    "ConfigError",
    "LocalLoss",
    "Method",
    "Reach",
    "Run",
    "RunFailed",
    "Sample",
    "Site",
    "Task",
    "Turn",
    "__version__",
    "train",
]
_MODULES = {
    "launch.api": ("Run", "RunFailed", "train"),
    "launch.config.errors": ("ConfigError",),
    "pipeline.feedback": ("Back", "Reach"),
    "pipeline.method": ("LocalLoss", "Method", "Sample", "Turn"),
    "pipeline.site": ("Site",),
    "pipeline.task": ("Task",),
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use: all of them need torch, whose import takes seconds."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"greedypipe.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
