"""greedypipe: pipeline-parallel training without backward locking.

>>> run = greedypipe.train("configs/digits.yaml", "training.epochs=3", stages=4)
>>> run.network(), run.metrics()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greedypipe.launch.api import Run, RunFailed, train
    from greedypipe.launch.config.errors import ConfigError

__version__ = "0.2.0"
__all__ = ["ConfigError", "Run", "RunFailed", "__version__", "train"]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use: all of them need torch, whose import takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("greedypipe.launch.api"), name)
