"""Who may import whom (design, section 2), read from the source."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "pipeline": {"pipeline"},
    "buffers": {"buffers"},
    "workers": {"workers", "pipeline", "buffers"},
    "launch": {"launch", "workers", "pipeline", "buffers"},
}
OURS = {*ALLOWED, "benchmarks", "tests", "configs"}
OPTIONAL = {"ray", "wandb", "torchvision", "sklearn", "matplotlib"}
"""Never imported at the top of a file: a run that does not ask for them must not need them."""


def imports(path: Path) -> list[tuple[str, bool]]:
    """First components of all imported names, each with whether it stands inside a function."""
    tree = ast.parse(path.read_text())
    inner = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.partition(".")[0], id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(((node.module or "").partition(".")[0], id(node) in inner))
    return found


def wrong_imports(package: str, path: Path) -> list[str]:
    return [name for name, _ in imports(path) if name in OURS - ALLOWED[package]]


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    assert files(package)
    assert {str(path): wrong for path in files(package) if (wrong := wrong_imports(package, path))} == {}


def test_a_planted_import_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    from workers.stage import StageWorker\n")
    assert wrong_imports("pipeline", planted) == ["workers"]


@pytest.mark.parametrize("package", ALLOWED)
def test_optional_packages_are_imported_only_where_they_are_used(package: str) -> None:
    eager = {str(path): name for path in files(package) for name, inside in imports(path) if name in OPTIONAL and not inside}
    # What needs Ray lies in a folder of its own, which nothing imports before it is known to be there.
    assert {path: name for path, name in eager.items() if not (name == "ray" and "on_ray" in path)} == {}


def test_the_folder_that_needs_ray_is_imported_only_where_it_is_used() -> None:
    outside = [path for package in ALLOWED for path in files(package) if "on_ray" not in path.parts]
    lines = [line for path in outside for line in path.read_text().splitlines() if "import" in line and "on_ray" in line]
    assert lines == ["    from launch.on_ray.driver import run_on_cluster"]


def test_no_file_in_launch_shadows_a_module() -> None:
    names = {path.stem for path in files("launch")} - {"__init__"}
    assert not names & (sys.stdlib_module_names | OPTIONAL | {"torch", "yaml", "rich", "pydantic", "numpy"})


def test_no_file_or_function_outgrows_its_reader() -> None:
    long_files = [str(path) for package in ALLOWED for path in files(package) if len(path.read_text().splitlines()) > 300]
    assert long_files == []
