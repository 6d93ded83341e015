"""Lets a command of this folder be run as a file: `import greedypipe` then finds this checkout, also in child processes.

Imported for its side effect by a file that is `__main__`. Python has put launch/ first on the import path, where `config`
and `process` would hide a user's modules of these names; the user's current folder replaces it.
"""

import os
import sys
from pathlib import Path

_CHECKOUT = str(Path(__file__).resolve().parent / "checkout")

sys.path[:1] = [os.getcwd(), _CHECKOUT]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_CHECKOUT, os.environ.get("PYTHONPATH")]))
