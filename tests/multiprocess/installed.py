"""The package in an environment of its own, without what stands in this checkout."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"tests", "benchmarks", "runs", "data", "build"}


def make_environment(folder: Path) -> Path:
    """A virtual environment that has torch and the like, but no greedypipe; returns its folder of commands."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path file adds a folder, but not what that folder's own path files add, such as an editable greedypipe.
    (site / "shared.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return folder / "bin"


def run(command: list[str | Path], cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = clean | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=110)


def copy_checkout(folder: Path) -> Path:
    """A copy of the checkout without tests, in a folder that does not exist yet."""

    def ignored(path: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(path) == ROOT and (name in LEFT_OUT or name.startswith("."))}

    shutil.copytree(ROOT, folder, symlinks=True, ignore=ignored)
    return folder


def install(checkout: Path, commands: Path) -> None:
    """Installs a checkout, and nothing that it needs, into the environment with these commands."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    result = run([sys.executable, "-m", "pip", "--python", commands / "python", "install", *options, "."], checkout)
    assert result.returncode == 0, result.stderr
