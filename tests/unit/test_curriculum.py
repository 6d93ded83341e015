"""Training in the order of difficulty: which samples are in use when, and where the difficulties come from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.workers.data.curriculum import CurriculumOrder, Pacing
from greedypipe.workers.data.source import BatchSource

RANKED = torch.arange(100).flip(0)


def order(seed: int = 0, pacing: Pacing = Pacing(0.1, 2.0, 6), batch_size: int = 5) -> CurriculumOrder:  # noqa: B008
    return CurriculumOrder(RANKED, batch_size, False, pacing, seed)


def test_the_share_in_use_grows_until_it_is_everything() -> None:
    one = order()
    assert [one.in_use(batch_id) for batch_id in (0, 5, 6, 12, 18, 24, 1000)] == [10, 10, 20, 40, 80, 100, 100]
    for batch_id in range(60):
        drawn, size = one.indices(batch_id), one.in_use(batch_id)
        assert len(set(drawn.tolist())) == 5 and drawn.min() >= 100 - size


def test_every_sample_in_use_is_drawn_once_before_any_is_again() -> None:
    one = order()
    assert sorted(torch.cat([one.indices(batch_id) for batch_id in (0, 1)]).tolist()) == list(range(90, 100))
    again = torch.cat([one.indices(batch_id) for batch_id in (2, 3)])
    assert sorted(again.tolist()) == list(range(90, 100))
    assert again.tolist() != torch.cat([one.indices(batch_id) for batch_id in (0, 1)]).tolist()
    whole = torch.cat([one.indices(batch_id) for batch_id in range(24, 44)])
    assert sorted(whole.tolist()) == list(range(100))


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    walked, jumped = order(), order()
    in_order = [walked.indices(batch_id) for batch_id in range(50)]
    for batch_id in reversed(range(50)):
        assert torch.equal(jumped.indices(batch_id), in_order[batch_id])
    assert not torch.equal(order(seed=1).indices(0), in_order[0])


def test_a_batch_is_never_larger_than_the_samples_in_use() -> None:
    assert order(batch_size=32).in_use(0) == 32 and len(order(batch_size=32).indices(0)) == 32


CONFIG = ["data.name=synthetic", "data.shape=[1,4,4]", "data.samples=100", "data.batch_size=10", "data.augment=none"]


def test_the_hardest_come_first_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "d.npy"
    difficulties = np.random.default_rng(0).permutation(100).astype(np.float32)
    np.save(path, difficulties)
    for name, expected in (("curriculum", range(10)), ("anti_curriculum", range(90, 100))):
        keys = [
            f"data.order={name}",
            f"data.difficulty={path}",
            "data.pacing_start=0.1",
            "data.pacing_growth=2",
            "data.pacing_steps=9",
        ]
        source = BatchSource(load_config(None, [*CONFIG, *keys]).data, 0)
        pixels = {image.numpy().tobytes(): index for index, image in enumerate(_stored(source))}
        drawn = {int(difficulties[pixels[image.numpy().tobytes()]]) for image in source.training_batch(0).images}
        assert drawn == set(expected) and source.steps_per_epoch == 10


def _stored(source: BatchSource) -> list[torch.Tensor]:
    return [image for batch in source.stored_training_batches() for image in batch.images]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is no file: `greedypipe evaluate RUN --difficulty FILE` writes one"),
        (b"\x80\x04K\x05.", "is no .npy file"),
        (np.zeros(99, np.float32), "got float32 [99], allowed: 100 numbers, one per training sample"),
        (np.full(100, np.nan), "got numbers that are not finite"),
        (np.array([{}] * 100, dtype=object), "is no .npy file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, content: np.ndarray | bytes | None, complaint: str
) -> None:
    path = tmp_path / "d.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(ConfigError) as refusal:
        make_plan(load_config(None, [*CONFIG, "data.order=curriculum", f"data.difficulty={path}"]), 1)
    assert complaint in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_difficulty_without_an_order_has_no_effect() -> None:
    with pytest.raises(ConfigError, match=r"data\.difficulty: got 'd\.npy', which has no effect with data\.order=shuffled"):
        load_config(None, [*CONFIG, "data.difficulty=d.npy"])
