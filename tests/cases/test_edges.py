"""Under isolation a stage that dies at an edge of its run comes back alone: connecting, last pass, end and last save."""

from pathlib import Path

import pytest

from benchmarks.campaign.edges import POINTS, Strike
from greedypipe.launch.checkpoints.manifest import complete_folders, read_manifest
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.launch.on_host.outcome import Outcome
from tests.multiprocess.harness import TINY, assert_equal_states, exported

RUN = [
    *TINY,
    "partition.blocks=3",
    "training.epochs=2",
    "evaluation.every_epochs=2",
    "checkpoint.interval_steps=5",
    "checkpoint.keep=20",
    "logging.interval_steps=1",
    "faults.heartbeat_timeout_s=3",
    "faults.timeout_s=10",
]
NOT_IN_EVERY_STAGE = {"commit.before", "commit.after", "prune", "summary.before", "summary.after"}
"""Only rank 0 comes there."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_pipeline(RUN, 3, tmp_path_factory.mktemp("uninterrupted") / "run")


def struck(point: str, rank: int, tmp_path: Path, *settings: str, processes: int = 3) -> Outcome:
    strike = Strike(point, rank, tmp_path / "struck")
    outcome = run_pipeline([*RUN, "faults.policy=isolate", *settings], processes, tmp_path / "run", 40, enter=strike)
    if not strike.flag.exists():
        pytest.skip("this rank does not come to this point")
    assert outcome.exit_codes == [0] * processes, outcome.printed
    assert outcome.summary["status"] == "finished" and outcome.summary["accuracy"]
    assert (outcome.folder / "checkpoints" / "final" / "manifest.json").exists()
    assert not list(outcome.folder.rglob("*.partial"))
    for folder in complete_folders(outcome.folder):
        read_manifest(folder)
    return outcome


def every_case(*quick: tuple[str, str, int]) -> list[object]:
    """All points in all ranks and with both policies; the given ones run in every test run, the others are slow."""
    every = [
        (policy, point, rank)
        for policy in ("fifo", "replay")
        for point in POINTS
        for rank in range(3)
        if "gloo" not in point and not (rank and point in NOT_IN_EVERY_STAGE)
        and point.partition(" ")[0] not in ({"fifo", "replay"} - {policy})
    ]  # fmt: skip
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(
    ("policy", "point", "rank"),
    every_case(
        ("fifo", "end.after", 1),
        ("replay", "end.before", 1),
        ("replay", "save.before", 2),
        ("replay", "summary.before", 0),
        ("replay", "commit.before", 0),
    ),
)
def test_it_comes_back_alone(policy: str, point: str, rank: int, uninterrupted: Outcome, tmp_path: Path) -> None:
    outcome = struck(point, rank, tmp_path, f"buffers.policy={policy}")
    if policy == "fifo":
        assert_equal_states(exported(outcome), exported(uninterrupted))
        assert outcome.summary["evaluations"] == uninterrupted.summary["evaluations"]


@pytest.mark.parametrize(
    ("policy", "rank"),
    [("fifo", 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("fifo", 2), ("replay", 1), ("replay", 2)))],
)
def test_the_wait_for_a_gloo_link_is_given_up(policy: str, rank: int, tmp_path: Path) -> None:
    struck("gloo", rank, tmp_path, f"buffers.policy={policy}", "link.transport=gloo")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_the_wait_for_a_group_of_replicas_is_given_up(rank: int, tmp_path: Path) -> None:
    struck("gloo.replicas", rank, tmp_path, "placement.replicas=[1,2,1]", "data.batch_size=64", processes=4)
