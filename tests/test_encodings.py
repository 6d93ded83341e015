"""Text is UTF-8 by name wherever a file or a pipe is read or written, whatever the language of the host."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.structure import PACKAGES, ROOT

FOLDERS = (*PACKAGES, "benchmarks", "examples")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if not path.is_symlink()]
NOT_TEXT = {"os", "tarfile", "Image", "zipfile", "urllib", "wave", "gzip", "webbrowser"}
"""Modules and classes whose `open` has no encoding."""
PROCESSES = {"run", "Popen", "check_output", "check_call", "call"}


def nameless(tree: ast.Module) -> Iterator[int]:
    """The lines that open text, or the text of a process, without naming its encoding."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_text(node) and not any(one.arg == "encoding" for one in node.keywords):
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
    named = {one.arg: one.value for one in call.keywords}
    if name in PROCESSES:
        return "text" in named or "universal_newlines" in named
    if name in ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"):
        return "mode" in named and "b" not in _text_of(named["mode"])
    if name == "open" and owner not in NOT_TEXT:
        modes = [named["mode"]] if "mode" in named else call.args[isinstance(call.func, ast.Name) :][:1]
        return not any("b" in _text_of(mode) for mode in modes)
    # With a first argument, read_text is of something else: its encoding.
    return name == "write_text" or (name == "read_text" and not call.args)


def _text_of(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_and_pipe_of_text_has_its_encoding(folder: str) -> None:
    files = [path for path in FILES if path.relative_to(ROOT).parts[0] == folder]
    assert [f"{path}: {line}" for path in files for line in nameless(ast.parse(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.open('a', buffering=1)", True),
        ("open(name)", True),
        ("subprocess.run(command, text=True)", True),
        ("NamedTemporaryFile(mode='w')", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("open(name, 'w+b')", False),
        ("Image.open(path)", False),
        ("subprocess.run(command, capture_output=True)", False),
        ("tempfile.NamedTemporaryFile()", False),
    ],
)
def test_a_planted_call_is_found(code: str, is_found: bool) -> None:
    assert list(nameless(ast.parse(code))) == ([1] if is_found else [])


def test_the_files_are_found() -> None:
    assert Path(ROOT / "launch" / "run.py") in FILES
