"""Two source trees under one python: each is driven by its own commands alone, and must run its own code."""

import contextlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600.0
NOT_INHERITED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Variables that would bring a tree other code than its own, or have it compile its modules at every start."""
EARLIER_KEYS: Mapping[str, str] = {
    "method.name": "loss.name",
    "method.beta": "loss.beta",
    "method.weight": "loss.reconstruction_weight",
}
"""What a tree without a section `method` calls these keys."""
_SOURCE = re.compile(r"(?:matches|code object from) '?(/[^'\n]+\.py)'?")
"""How PYTHONVERBOSE reports the source of an imported module, with and without its .pyc."""


@dataclass(frozen=True)
class Tree:
    """A checkout.

    Attributes:
        keys: Its names of configuration keys, where they are other than this file's.
    """

    label: str
    root: Path
    keys: Mapping[str, str]

    def call(
        self, command: Sequence[str], cores: Sequence[int] = (), **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Runs python with these arguments, in the tree's folder, to the end.

        Modules are compiled once and kept, as python does unless it is told otherwise: a second start does not
        pay for the number of a tree's files.

        Args:
            cores: Positions of those that it may use, of all that there are; empty: all.

        Raises:
            RuntimeError: It failed; with what it printed.
        """
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        mine = sorted(os.sched_getaffinity(0))
        chosen = ",".join(str(mine[core % len(mine)]) for core in cores)
        done = subprocess.run(
            [*(("taskset", "-c", chosen) if chosen else ()), sys.executable, *command],
            cwd=self.root,
            env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise RuntimeError(f"{self.label}: python {' '.join(command)}:\n{done.stdout}{done.stderr}")
        return done

    def train(
        self, processes: int, settings: Sequence[str], folder: Path, *arguments: str, cores: Sequence[int] = ()
    ) -> None:
        """Trains in `folder`, started by torchrun.

        Args:
            settings: Of the form section.key=value, in this file's names; all others have their defaults.
            arguments: Further ones of launch/run.py.
            cores: As of `call`.
        """
        config = folder.with_suffix(".yaml")
        config.write_text("{}\n", encoding="utf-8")
        where = [f"--config={config}", f"run.folder={folder.parent}", f"run.name={folder.name}"]
        self.call([*torchrun(processes), "launch/run.py", *arguments, *where, *self._translated(settings)], cores)

    def export(self, run: Path, model: Path) -> None:
        """Writes a run's network to `model`, and its heads next to it."""
        self.call(["launch/export.py", str(run), "--out", str(model)])

    def check_runs_its_own_code(self) -> None:
        """Starts a run as `train` does, up to its configuration, and looks at the file of every module.

        Raises:
            RuntimeError: A module comes neither from this tree nor from the installation of python.
        """
        verbose = self.call([*torchrun(1), "launch/run.py", "--print-config"], PYTHONVERBOSE="1").stderr
        installed = tuple({Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)})
        files = {Path(file).resolve() for file in _SOURCE.findall(verbose)}
        files = {file for file in files if not any(file.is_relative_to(prefix) for prefix in installed)}
        foreign = sorted(str(file) for file in files if not file.is_relative_to(self.root))
        if foreign or self.root / "pipeline" / "block.py" not in files:
            raise RuntimeError(f"{self.label}: does not run the code in {self.root}, but {foreign[:5] or 'none of it'}")

    def _translated(self, settings: Sequence[str]) -> list[str]:
        pairs = [setting.partition("=") for setting in settings]
        return [f"{self.keys.get(key, key)}={value}" for key, _, value in pairs]


def torchrun(processes: int) -> list[str]:
    """Arguments of python that start `processes` processes of the script that follows."""
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]


def tree_at(root: Path, label: str) -> Tree:
    """The tree in a folder; asks it for the names of its keys, and checks that it runs its own code."""
    tree = Tree(label, root.resolve(), {})
    sections = re.findall(r"^(\w+):", tree.call(["launch/run.py", "--print-config"]).stdout, re.MULTILINE)
    tree = Tree(label, tree.root, {} if "method" in sections else EARLIER_KEYS)
    tree.check_runs_its_own_code()
    return tree


@contextlib.contextmanager
def checked_out(where: str) -> Iterator[tuple[Path, str]]:
    """The folder of a commit, unpacked for the body, and its hash; a folder is taken as it is.

    Raises:
        ValueError: Neither a folder nor a commit.
    """
    if Path(where).is_dir():
        yield Path(where), describe(Path(where))
        return
    found = _git(ROOT, "rev-parse", "--verify", "--quiet", f"{where}^{{commit}}")
    if found.returncode:
        raise ValueError(f"got {where}, allowed: a commit of {ROOT} or the folder of a checkout")
    commit = found.stdout.decode().strip()
    archive = _git(ROOT, "archive", "--format=tar", commit).stdout
    with tempfile.TemporaryDirectory(prefix="greedypipe-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder), commit


def describe(root: Path) -> str:
    """The commit that a folder is at, with -dirty where files differ from it; `no repository` elsewhere."""
    found = _git(root, "describe", "--always", "--dirty", "--abbrev=40")
    return found.stdout.decode().strip() or "no repository"


def _git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True)
