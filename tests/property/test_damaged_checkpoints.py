"""Whatever happens to the bytes of a checkpoint, it is never taken for complete, and never ends in a traceback."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greedypipe.launch.checkpoints.manifest import (
    MANIFEST,
    Manifest,
    Outdated,
    checkpoints_of,
    commit,
    name_of,
    newest_valid,
)
from greedypipe.workers.block_files import read_block, write_block
from tests.unit.tiny import make_blocks

OLDER, NEWER = 4, 8


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """A run with two valid checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        for batch_id in (OLDER, NEWER):
            checkpoint = checkpoints_of(Path(folder)) / name_of(batch_id)
            files = dict(write_block(checkpoint, block.state_dict() | {"turn": batch_id}) for block in make_blocks(2))
            config = {"partition": {"blocks": 2}, "model": {"name": "mlp"}}
            commit(checkpoint, Manifest(batch_id, {0: batch_id, 1: batch_id}, files, None, config, {}))
        yield Path(folder)


def is_passed_over(run: Path, name: str, content: bytes) -> bool:
    """Whether the older checkpoint is taken, with one line, while a file of the newer one holds this."""
    path = checkpoints_of(run) / name_of(NEWER) / name
    kept = path.read_bytes()
    path.write_bytes(content)
    said: list[str] = []
    try:
        found = newest_valid(run, said.append)
    finally:
        path.write_bytes(kept)
    assert found is not None
    return found[1].batch_id == OLDER and len(said) == 1 and "\n" not in said[0] and name in said[0]


def file_of(run: Path, name: str) -> bytes:
    return (checkpoints_of(run) / name_of(NEWER) / name).read_bytes()


@given(position=st.integers(0), value=st.integers(0, 255))
def test_a_manifest_with_one_other_byte_is_not_believed(position: int, value: int, run: Path) -> None:
    content = bytearray(file_of(run, MANIFEST))
    position %= len(content)
    content[position] = value if content[position] != value else value ^ 1
    try:
        assert is_passed_over(run, MANIFEST, bytes(content))
    except Outdated as refusal:
        assert "written by greedypipe 0.1" in str(refusal)


@given(length=st.integers(0))
def test_a_manifest_that_is_cut_off_is_not_believed(length: int, run: Path) -> None:
    content = file_of(run, MANIFEST)
    assert is_passed_over(run, MANIFEST, content[: length % len(content)])


@given(text=st.one_of(st.binary(max_size=200), st.sampled_from([b"null", b"[]", b"{}", b"[" * 9999, b'{"files": 1e999}'])))
def test_a_foreign_manifest_is_not_believed(text: bytes, run: Path) -> None:
    assert is_passed_over(run, MANIFEST, text)


@settings(max_examples=40)
@given(position=st.integers(0), value=st.integers(1, 255))
def test_a_block_with_one_other_byte_is_not_believed(position: int, value: int, run: Path) -> None:
    content = bytearray(file_of(run, "block1.pt"))
    content[position % len(content)] ^= value
    assert is_passed_over(run, "block1.pt", bytes(content))


@settings(max_examples=40)
@given(position=st.integers(0), value=st.integers(1, 255), length=st.integers(0))
def test_a_damaged_file_is_a_block_or_a_line(position: int, value: int, length: int, run: Path) -> None:
    content = bytearray(file_of(run, "block1.pt"))
    content[position % len(content)] ^= value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block1.pt"
        path.write_bytes(content[: length % len(content)] if length % 2 else content)
        try:
            assert read_block(path)["index"] is not None
        except ValueError as error:
            assert len(str(error).splitlines()) == 1
