"""The structure of the code, read from its source: `python -m tests.structure` prints it, test_layering.py judges it."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "buffers", "workers", "launch")
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 300, 40, 8


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, and whether the import stands inside a function."""

    module: str
    inside_function: bool


@dataclass(frozen=True)
class Source:
    """One file of the packages."""

    path: Path
    name: str
    """Dotted, without `greedypipe.`: workers.links.gloo."""

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import; those of our own packages without `greedypipe.` and down to the file, not to the name in it."""
        inner = {id(node) for function in self.functions() for node in ast.walk(function)}
        return tuple(
            Import(module, id(node) in inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for module in _modules(node)
        )

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def sources(root: Path = ROOT) -> list[Source]:
    """All files of our packages, without the link that makes a checkout importable."""
    return [
        Source(path, ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        if not path.is_symlink()
    ]


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.removeprefix("greedypipe.") for alias in node.names]
    assert node.level == 0, "a relative import"
    module = node.module or ""
    if not module.startswith("greedypipe"):
        return [module]
    found = []
    for alias in node.names:
        whole = f"{module}.{alias.name}".removeprefix("greedypipe.")
        is_module = (ROOT / whole.replace(".", "/")).with_suffix(".py").exists() or (ROOT / whole.replace(".", "/")).is_dir()
        found.append(whole if is_module else module.removeprefix("greedypipe").removeprefix("."))
    return found


def cycles(files: list[Source]) -> list[str]:
    """A circle of files that import each other; empty where there is none."""
    known = {source.name for source in files}
    graph = {source.name: {one.module for one in source.imports if one.module in known} for source in files}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def long_files(files: list[Source]) -> list[str]:
    lengths = {source.name: len(source.path.read_text().splitlines()) for source in files}
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MOST_LINES]


def long_functions(files: list[Source]) -> list[str]:
    """Functions with more lines than MOST_FUNCTION_LINES, docstring not counted."""
    found = []
    for source in files:
        for function in source.functions():
            body = function.body[1:] if ast.get_docstring(function) else function.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > MOST_FUNCTION_LINES:
                found.append(f"{source.name}.{function.name}: {lines} lines")
    return found


def long_parameter_lists(files: list[Source]) -> list[str]:
    """Functions with more parameters than MOST_PARAMETERS, `self` not counted."""
    found = []
    for source in files:
        for function in source.functions():
            arguments = function.args
            names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > MOST_PARAMETERS:
                found.append(f"{source.name}.{function.name}: {count} parameters")
    return found


def main() -> None:
    files = sources()
    rooms = Counter(source.path.parent.relative_to(ROOT).as_posix() for source in files if source.path.stem != "__init__")
    for room, count in sorted(rooms.items()):
        print(f"{room:28} {count:3} files")
    found = {
        "import cycles": cycles(files),
        f"files > {MOST_LINES} lines": long_files(files),
        f"functions > {MOST_FUNCTION_LINES} lines": long_functions(files),
        f"parameter lists > {MOST_PARAMETERS}": long_parameter_lists(files),
    }
    for what, offenders in found.items():
        print(f"{what:28} {len(offenders):3}")
        for offender in offenders:
            print(f"    {offender}")


if __name__ == "__main__":
    main()
