"""Makes a checkout importable as the package `greedypipe`, whatever its folder is called.

It applies when the checkout is on the import path: as the current folder of `python -m greedypipe` or `python -m
benchmarks.links`, or as the working directory of a Ray job. `launch/checkout/` links to it, for commands run as files.
An installed package does not contain it.
"""

import importlib.util
import sys
from pathlib import Path

_NAME = "greedypipe"
# Not simply the folder of this file: copying a checkout may have turned the link into a file.
_ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "__main__.py").is_file())

# The import system returns whatever is in sys.modules once this file has run.
if __name__ == _NAME or _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, _ROOT / "__init__.py", submodule_search_locations=[str(_ROOT)])
    assert _spec and _spec.loader
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])

if __name__ == "__main__":
    from greedypipe.__main__ import main

    main()
