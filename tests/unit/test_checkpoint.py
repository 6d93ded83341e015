"""Blocks on disk, and the saver that writes them beside the training."""

import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from greedypipe.launch.checkpoints.trained_network import layers_of
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.block import Block
from greedypipe.workers import block_files as checkpoint
from greedypipe.workers.block_files import FINAL, EndNotSaved, Saver, load_blocks, not_finite, write_block
from greedypipe.workers.telemetry.records import Saved
from tests.unit.tiny import differing, flat, make_block, train


def blocks(num_blocks: int) -> tuple[list[Block], dict[str, torch.Tensor]]:
    plan = make_plan(load_config(None, ["model.width=0.1", f"partition.blocks={num_blocks}"]), 1)
    built = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(num_blocks)]
    return built, plan.blueprint.network.state_dict()


def told() -> tuple[dict[str, Saved], Any]:
    saved: dict[str, Saved] = {}
    return saved, saved.__setitem__


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_the_saved_blocks_are_the_whole_network_under_its_own_names(num_blocks: int, tmp_path: Path) -> None:
    built, expected = blocks(num_blocks)
    saver = Saver(tmp_path / "checkpoints", lambda name, saved: None)
    saver.save_now(FINAL, built)
    saver.close()
    state = layers_of(load_blocks(tmp_path / "checkpoints" / FINAL))
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_nothing_but_whole_files_is_left(tmp_path: Path) -> None:
    write_block(tmp_path, make_block().state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["block0.pt"]


def test_a_missing_block_is_an_error(tmp_path: Path) -> None:
    write_block(tmp_path, make_block(1).state_dict())
    with pytest.raises(ValueError, match="1 files, block 0 missing"):
        load_blocks(tmp_path)
    with pytest.raises(ValueError, match="0 files"):
        load_blocks(tmp_path / "empty")


def test_what_is_saved_is_the_block_as_it_was_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, undisturbed = make_block(), make_block()
    train(block, range(2))
    train(undisturbed, range(2))
    may_write, write = threading.Event(), write_block
    monkeypatch.setattr(checkpoint, "write_block", lambda *call: (may_write.wait(10), write(*call))[1])
    saved, tell = told()
    saver = Saver(tmp_path, tell)
    saver.save("one", [block])
    train(block, range(2, 4))
    may_write.set()
    saver.close()
    (state,) = load_blocks(tmp_path / "one")
    assert not differing(state, undisturbed.state_dict())
    assert saved["one"].steps == {0: 2} and list(saved["one"].files) == ["block0.pt"]


def test_a_mark_that_comes_twice_keeps_what_was_told_of_it(tmp_path: Path) -> None:
    block, (saved, tell) = make_block(), told()
    saver = Saver(tmp_path, tell, saved.get)
    saver.save("one", [block])
    saver.wait()
    first = saved["one"]
    train(block, range(2))
    saver.save("one", [block])
    saver.wait()
    assert saved["one"] == first and load_blocks(tmp_path / "one")[0]["turn"] == 0
    (tmp_path / "one" / "block0.pt").unlink()
    saver.save("one", [block])
    saver.close()
    assert saved["one"].steps == {0: 2} and load_blocks(tmp_path / "one")[0]["turn"] == 2


def test_every_save_after_the_first_copies_into_the_same_memory(tmp_path: Path) -> None:
    block, saver = make_block(), Saver(tmp_path, lambda name, saved: None)
    where, contents = [], []
    for step in range(3):
        train(block, range(step, step + 1))
        saver.save(str(step), [block])
        saver.wait()
        copies = [leaf for leaf in flat(saver._copies).values() if isinstance(leaf, torch.Tensor)]
        where.append([leaf.data_ptr() for leaf in copies])
        contents.append(load_blocks(tmp_path / str(step))[0])
    assert where[0] == where[1] == where[2]
    assert differing(contents[1], contents[2]) and not differing(contents[2], block.state_dict())
    saver.close()


def test_a_full_disk_is_told_leaves_nothing_and_does_not_hinder_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, tell = told()
    saver = Saver(tmp_path, tell)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        saver.save("one", [make_block()])
        saver.wait()
    saver.save("two", [make_block()])
    saver.close()
    assert "No space left" in saved["one"].failure and not saved["one"].files
    assert list((tmp_path / "one").iterdir()) == []
    assert saved["two"].files and not saved["two"].failure
    assert saver.stalled_s > 0


def test_the_end_of_a_run_must_be_saved(tmp_path: Path) -> None:
    (tmp_path / FINAL).write_text("in the way")
    saver = Saver(tmp_path, lambda name, saved: pytest.fail("told"))
    with pytest.raises(EndNotSaved, match=f"{FINAL} cannot be written: "):
        saver.save_now(FINAL, [make_block()])


class FullAfter:
    """A file that takes so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: Any) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(28, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 100, 2000])
def test_a_disk_that_fills_up_while_a_block_is_written_is_named(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint.replacing

    @contextlib.contextmanager
    def replacing(path: Path) -> Iterator[Any]:
        with real(path) as file:
            yield FullAfter(file, room)

    monkeypatch.setattr(checkpoint, "replacing", replacing)
    with pytest.raises(OSError, match="No space left on device"):
        write_block(tmp_path, make_block().state_dict())
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    name, digest = write_block(tmp_path, make_block().state_dict())
    assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("where", ["layers", "method", "optimizer"])
def test_what_is_not_finite_is_not_saved(where: str, tmp_path: Path) -> None:
    block, (saved, tell) = make_block(), told()
    train(block, range(1))
    state = block.state_dict()
    held = next(iter(state["optimizer"]["state"].values()))["momentum_buffer"] if where == "optimizer" else None
    (next(iter(state[where].values())) if held is None else held).view(-1)[0] = math.nan
    saver = Saver(tmp_path, tell)
    saver.save("one", [block])
    saver.close()
    assert "is not finite" in saved["one"].failure and "block 0" in saved["one"].failure
    assert not (tmp_path / "one").exists()
    with pytest.raises(FloatingPointError, match=r"block 0: .* is not finite"):
        saver.save_now(FINAL, [block])


def test_a_buffer_may_be_infinite(tmp_path: Path) -> None:
    state = make_block().state_dict()
    assert not not_finite(state | {"layers": state["layers"] | {"mask": torch.tensor([0.0, -math.inf])}})
    assert not_finite(state | {"layers": state["layers"] | {"mask": torch.tensor([math.nan])}}) == "mask is not finite"
