"""Lets a command of this folder be run as a file: `import greedypipe` is then this checkout, in child processes as well.

Imported for its effect, by a file that is `__main__`. Python has put launch/ first on the import path, where `config` or
`process` would hide a user's modules of these names; the user's current folder takes its place.
"""

import os
import sys
from pathlib import Path

_CHECKOUT = str(Path(__file__).resolve().parent / "checkout")

sys.path[:1] = [os.getcwd(), _CHECKOUT]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_CHECKOUT, os.environ.get("PYTHONPATH")]))
