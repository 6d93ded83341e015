from pathlib import Path

import pytest
import torch

from launch.config import load_config
from launch.export import network_state
from launch.preflight import make_plan
from pipeline.block import Block
from workers.checkpoint import load_blocks, save_block


def blocks(num_blocks: int) -> tuple[list[Block], dict[str, torch.Tensor]]:
    plan = make_plan(load_config(None, ["model.width=0.1", f"partition.blocks={num_blocks}"]), 1)
    built = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(num_blocks)]
    return built, plan.blueprint.network.state_dict()


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_the_saved_blocks_are_the_whole_network_under_its_own_names(num_blocks: int, tmp_path: Path) -> None:
    built, expected = blocks(num_blocks)
    for block in built:
        save_block(tmp_path / "checkpoints" / "final", block)
    state = network_state(tmp_path)
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_nothing_but_whole_files_is_left(tmp_path: Path) -> None:
    save_block(tmp_path, blocks(2)[0][0])
    assert [path.name for path in tmp_path.iterdir()] == ["block0.pt"]


def test_a_missing_block_is_an_error(tmp_path: Path) -> None:
    save_block(tmp_path, blocks(2)[0][1])
    with pytest.raises(ValueError, match="1 files, block 0 missing"):
        load_blocks(tmp_path)
    with pytest.raises(ValueError, match="0 files"):
        load_blocks(tmp_path / "empty")
