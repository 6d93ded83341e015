"""The comparison of two trees, without running any: what counts as the same, in whose words, and in what order."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.editions.bits import same_tensors
from benchmarks.editions.pace import LOADS, Figure, Load, interleaved
from benchmarks.editions.trees import EARLIER_KEYS, ROOT, Tree, checked_out
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan

EARLIER, CURRENT = Tree("earlier", ROOT, EARLIER_KEYS), Tree("current", ROOT, {})
STATE = {"block0.head.1.weight": torch.arange(6.0).reshape(2, 3), "block1.head.1.weight": torch.ones(2, 3)}


def verdict(folder: Path, **other: torch.Tensor) -> str:
    left, right = folder / "left.safetensors", folder / "right.safetensors"
    save_file(STATE, left)
    save_file({name.replace("_", "."): value for name, value in other.items()}, right)
    return same_tensors(left, right)


def test_equal_files_and_equal_tensors_under_other_names_are_the_same(tmp_path: Path) -> None:
    zero, one = STATE.values()
    assert verdict(tmp_path, block0_head_1_weight=zero, block1_head_1_weight=one) == "bytes"
    assert verdict(tmp_path, block0_method_weight=zero, block1_method_weight=one) == "tensors"


def test_another_bit_another_block_another_shape_and_a_missing_tensor_differ(tmp_path: Path) -> None:
    zero, one = STATE.values()
    near = zero.clone()
    near[0, 0] = torch.nextafter(near[0, 0], torch.tensor(1.0))
    assert verdict(tmp_path, block0_head_1_weight=near, block1_head_1_weight=one) == "DIFFERS"
    assert verdict(tmp_path, block0_method_weight=near, block1_method_weight=one) == "DIFFERS"
    assert verdict(tmp_path, block0_method_weight=one, block1_method_weight=zero) == "DIFFERS"
    assert verdict(tmp_path, block0_method_weight=zero.T.contiguous(), block1_method_weight=one) == "DIFFERS"
    assert verdict(tmp_path, block0_method_weight=zero) == "DIFFERS"
    assert same_tensors(tmp_path / "left.safetensors", tmp_path / "none.safetensors") == "DIFFERS"


def test_trees_take_turns_and_each_goes_first_as_often() -> None:
    asked = []

    def measure(tree: Tree, number: int) -> float:
        asked.append((tree.label, number))
        return 2.0 + number if tree is CURRENT else 1.0 + number

    assert interleaved((EARLIER, CURRENT), 2, measure) == ([1.0, 2.0], [2.0, 3.0])
    assert asked == [("earlier", 0), ("current", 0), ("current", 1), ("earlier", 1)]


def test_a_rate_must_not_fall_and_a_time_must_not_grow() -> None:
    slower, faster = ([2.0, 2.0, 2.0], [1.0, 1.0, 4.0]), ([2.0, 2.0, 2.0], [3.0, 3.0, 1.0])
    assert [Figure("rate", "samples/s", *values, 0.99).holds for values in (slower, faster)] == [False, True]
    assert [Figure("time", "s", *values, 1.02).holds for values in (slower, faster)] == [True, False]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_load_is_as_long_as_it_is_asked_to_be(load: Load) -> None:
    plan = make_plan(load_config(None, [*load.settings, *load.length(100)]), 1)
    assert 100 <= plan.blueprint.total_steps < 100 + plan.blueprint.total_steps / plan.config.training.epochs
    assert plan.config.evaluation.every_epochs == plan.config.training.epochs


def test_a_folder_is_taken_as_it_is_and_nonsense_is_refused(tmp_path: Path) -> None:
    with checked_out(str(tmp_path)) as (root, commit):
        assert (root, commit) == (tmp_path, "no repository")
    with pytest.raises(ValueError, match="got nonsense, allowed: a commit"), checked_out("nonsense"):
        pass


def test_code_of_another_tree_is_noticed(tmp_path: Path) -> None:
    """A folder whose command imports this checkout's code."""
    (tmp_path / "launch").mkdir()
    borrowed = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport greedypipe.pipeline.block\n"
    (tmp_path / "launch" / "run.py").write_text(borrowed)
    with pytest.raises(RuntimeError, match="does not run the code in"):
        Tree("earlier", tmp_path, {}).check_runs_its_own_code()
