"""A run on a user's own data set, in a folder of theirs."""

from pathlib import Path

import pytest

from tests.multiprocess.harness import TINY, run_pipeline
from tests.multiprocess.test_equivalence import assert_equals_reference

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_data" / "own_data.py"
DATASET = """

import torch

class Noisy(torch.utils.data.Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index] / 255 + 0.1 * torch.randn(1, 8, 8), self.labels[index]

def noisy_stripes(samples):
    return tuple(Noisy(*part) for part in stripes(samples, size=8))
"""


@pytest.mark.parametrize(
    "settings",
    [
        ("stripes", "data.options={samples: 600, size: 8}"),
        ("noisy_stripes", "data.options={samples: 600}", "data.loader_workers=1"),
    ],
    ids=["arrays", "dataset"],
)
def test_it_equals_the_sequential_reference(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(EXAMPLE.read_text() + DATASET)
    monkeypatch.syspath_prepend(tmp_path)
    function, *others = settings
    overrides = [*TINY, "partition.blocks=2", f"data.name={module}:{function}", *others]
    assert_equals_reference(run_pipeline(overrides, 2, tmp_path), overrides)
