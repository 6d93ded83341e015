"""Whether the data are those that a checkpoint was trained on."""

from dataclasses import replace

import pytest

from greedypipe.launch.checkpoints.data_identity import check_same_data
from greedypipe.launch.config.errors import ConfigError
from greedypipe.workers.data.info import DataInfo, label_map

SAVED = DataInfo(
    (3, 8, 8),
    ("cat", "dog"),
    20,
    6,
    (0.5, 0.5, 0.5),
    (0.2, 0.2, 0.2),
    class_samples=(12, 8),
    fingerprint="a",
    notes=("said once",),
)


def test_the_same_data_pass_without_a_word_whatever_is_noted_of_them() -> None:
    check_same_data(SAVED, replace(SAVED, notes=()), pytest.fail)
    check_same_data(None, SAVED, pytest.fail)


def test_other_files_with_the_same_numbers_are_said() -> None:
    said: list[str] = []
    check_same_data(SAVED, replace(SAVED, fingerprint="b"), said.append)
    assert said == [
        "data: the files have other names or sizes than those of the checkpoint, which has as many of every class"
    ]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"classes": ("dog", "z_cat")}, ["data: the classes are not those of the checkpoint: new: z_cat; missing: cat"]),
        ({"classes": ("dog", "cat")}, ["data: the classes are not those of the checkpoint: their order has changed"]),
        ({"train_samples": 50}, ["data: got 50 train samples, the checkpoint has 20: the data have changed"]),
        ({"validation_samples": 5}, ["data: got 5 validation samples, the checkpoint has 0: the data have changed"]),
        (
            {"class_samples": (11, 9)},
            [
                "data: class cat has 11 training samples, 12 in the checkpoint",
                "data: class dog has 9 training samples, 8 in the checkpoint",
            ],
        ),
        (
            {"input_shape": (1, 8, 8), "mean": (0.5,), "std": (0.2,)},
            [
                "data: input_shape is [1, 8, 8], the checkpoint has [3, 8, 8]",
                "data: mean is [0.5], the checkpoint has [0.5, 0.5, 0.5]",
                "data: std is [0.2], the checkpoint has [0.2, 0.2, 0.2]",
            ],
        ),
    ],
)
def test_a_difference_that_changes_the_run_is_refused_in_a_line(change: dict, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_same_data(SAVED, replace(SAVED, **change), pytest.fail)
    assert str(refusal.value).splitlines() == lines


def test_labels_are_matched_by_name() -> None:
    assert label_map(("c", "a"), ("a", "b", "c")).tolist() == [2, 0]
    with pytest.raises(ValueError, match="got the classes d, e, which the network does not know; it knows a, b"):
        label_map(("a", "d", "e"), ("a", "b"))
