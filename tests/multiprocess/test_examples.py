"""A user's own code outside of the package: greedypipe is installed, and files of examples/ are in a folder of theirs."""

import difflib
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.multiprocess.harness import TINY
from tests.multiprocess.installed import ROOT, copy_checkout, run

EXAMPLES = sorted((ROOT / "examples").glob("own_*"))
SHORT = ("training.epochs=1", "faults.timeout_s=30", "run.name=run")
A_METHOD = '''"""Cross-entropy that counts hard samples more (Lin et al., ICCV 2017).

    loss = (1 - p)^2 * cross_entropy(head(h), labels), p the probability of the label
"""

from typing import Literal

from torch import Tensor

from greedypipe.pipeline.method import LocalLoss, MethodConfig, Sample


class Focal(LocalLoss):
    class Config(MethodConfig):
        """Focal loss."""

        name: Literal["focal"] = "focal"

    def loss(self, sample: Sample) -> Tensor:
        each = self.task.loss(self.head(sample.h), sample.labels, reduction="none")
        return ((1 - (-each).exp()) ** 2 * each).mean()
'''
BEHIND = "from greedypipe.pipeline.methods.cross_entropy import CrossEntropy\n"
IMPORT = "from greedypipe.pipeline.methods.focal import Focal\n"
LAST = '    "cross_entropy": CrossEntropy,\n'
LINE = '    "focal": Focal,\n'


def fingerprints(folder: Path) -> dict[str, str]:
    """Every file below a folder but compiled ones."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def package_of(commands: Path) -> Path:
    (package,) = commands.parent.glob("lib/python*/site-packages/greedypipe")
    return package


def train(commands: Path, folder: Path, *arguments: str) -> set[str]:
    """Runs `greedypipe train` with two stages in a folder; returns the sections that name an object of one's own."""
    result = run([commands / "greedypipe", "train", "--stages", "2", *arguments, *SHORT], folder)
    assert result.returncode == 0, result.stderr
    summary = json.loads((folder / "runs" / "run" / "summary.json").read_text())
    assert summary["status"] == "finished" and len(summary["stages"]) == 2
    return set(own_sections(yaml.safe_load((folder / "runs" / "run" / "config.yaml").read_text())))


def own_sections(config: dict[str, dict[str, object]]) -> dict[str, object]:
    return {section: keys for section, keys in config.items() if ":" in str(keys.get("name", ""))}


@pytest.mark.timeout(180)
def test_all_of_them_train_at_once_and_touch_nothing_of_the_package(installed: Path, tmp_path: Path) -> None:
    sections: dict[str, object] = {"partition": {"blocks": 2}}
    for example in EXAMPLES:
        shutil.copy(example / f"{example.name}.py", tmp_path)
        sections |= own_sections(yaml.safe_load((example / "config.yaml").read_text()))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sections))
    before = fingerprints(package_of(installed))
    own = train(installed, tmp_path, "--config", "mine.yaml", "data.options.samples=400")
    assert own == {"data", "head", "method", "model", "optimizer"}
    assert fingerprints(package_of(installed)) == before and len(before) > 100


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_each_of_them_trains_in_its_folder(example: Path, installed: Path, tmp_path: Path) -> None:
    shutil.copytree(example, tmp_path / "mine")
    assert len(train(installed, tmp_path / "mine", "--config", "config.yaml")) == 1


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_is_wrong_in_it_is_one_line_and_nothing_starts(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def head(site):\n    return site.no_such_thing\n")
    refused = run([installed / "greedypipe", "train", *TINY, "head.name=mine:head"], tmp_path)
    found = "AttributeError: 'Site' object has no attribute 'no_such_thing'"
    assert refused.stderr == f"greedypipe: head.name=mine:head: {found} ({tmp_path}/mine.py:2)\n"
    assert (refused.returncode, refused.stdout) == (2, "") and not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_method_of_the_table_is_a_file_its_import_and_one_line(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "clone")
    before = fingerprints(checkout)
    table = checkout / "pipeline" / "methods" / "__init__.py"
    (table.parent / "focal.py").write_text(A_METHOD)
    old = table.read_text()
    new = old.replace(BEHIND, f"{BEHIND}{IMPORT}").replace(LAST, f"{LAST}{LINE}")
    table.write_text(new)
    command = [sys.executable, "-m", "greedypipe", "train", "--stages", "2", "method.name=focal"]
    result = run([*command, *TINY, "partition.blocks=2", *SHORT], checkout)
    assert result.returncode == 0, result.stderr
    added = [line for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[0] in "+-"]
    assert added == [f"+ {line}".rstrip() for line in (IMPORT, LINE)]
    after = fingerprints(checkout)
    changed = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    assert {name for name in changed if not name.startswith("runs/")} == {
        "pipeline/methods/__init__.py",
        "pipeline/methods/focal.py",
    }
