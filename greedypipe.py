"""Makes a checkout importable as the package `greedypipe`, whatever its folder is called.

It counts where the checkout is on the import path: as the current folder of `python -m greedypipe` or `python -m
benchmarks.links`, or as the working directory of a Ray job. `launch/checkout/` links to it, for commands run as files.
Nobody finds it in an installed package.
"""

import importlib.util
import sys
from pathlib import Path

_NAME = "greedypipe"
# Not simply the folder of this file: whoever copies a checkout may have made a file of the link.
_ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "__main__.py").is_file())

# The import system hands out whatever stands in sys.modules when this file has run.
if __name__ == _NAME or _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, _ROOT / "__init__.py", submodule_search_locations=[str(_ROOT)])
    assert _spec and _spec.loader
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])

if __name__ == "__main__":
    from greedypipe.__main__ import main

    main()
