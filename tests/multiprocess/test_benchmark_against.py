"""The current tree against itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.editions.trees import ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_tree_has_the_same_bits_as_itself(
    tmp_path: Path, run_benchmark: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_benchmark("against", str(ROOT), "--out", str(tmp_path / "against"))
    assert ended.value.code == 0
    found = json.loads((tmp_path / "against.json").read_text())
    assert [(one["network"], one["heads"]) for one in found["bits"]] == [("bytes", "bytes")]
    assert found["replicas_against_none"]["holds"] and found["replicas_against_none"]["largest_difference"] > 0
    assert len(found["figures"]) == 4
    assert all(one["earlier"]["median"] > 0 and one["current"]["median"] > 0 for one in found["figures"])
    assert "current / earlier" in capsys.readouterr().out
