"""An image that is damaged behind its header, so that only decoding it shows: one line, and no traceback."""

from pathlib import Path

import pytest

from tests.multiprocess.harness import run_pipeline
from tests.pictures import write_colours

RUN = ["data.name=image_folder", "data.batch_size=4", "model.name=mlp", "model.hidden=8", "partition.blocks=1"]
FROM_DISK = ["data.memory_limit_mb=0", "data.augment=none"]


@pytest.mark.parametrize("loading", [["data.memory_limit_mb=4096"], FROM_DISK, [*FROM_DISK, "data.loader_workers=1"]])
def test_a_run_ends_with_its_name(loading: list[str], tmp_path: Path) -> None:
    root = write_colours(tmp_path / "d", {"cat": (200, 10, 10), "dog": (10, 200, 10)})
    path = root / "train/dog/i03.png"
    content = path.read_bytes()
    middle = content.index(b"IDAT") + 6
    path.write_bytes(content[:middle] + bytes(8) + content[middle + 8 :])
    outcome = run_pipeline([*RUN, f"data.root={root}", *loading], 1, tmp_path)
    assert outcome.exit_codes == [1]
    said = outcome.printed[0]
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "cannot read the image" in line]
    assert line.startswith("greedypipe: stage 0 failed: DamagedImage: cannot read the image ") and str(path) in line
