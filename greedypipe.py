"""Makes a checkout importable as the package `greedypipe`, whatever its folder is called.

Not installed itself. It counts where the checkout is on the import path: as the current folder of `python -m
benchmarks.links`, or as the working directory of a Ray job. `launch/checkout/` links to it, for commands run as files.
"""

import importlib.util
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location(__name__, _ROOT / "__init__.py", submodule_search_locations=[str(_ROOT)])
assert _spec and _spec.loader
# The import system hands out whatever stands in sys.modules when this file has run.
sys.modules[__name__] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[__name__])
