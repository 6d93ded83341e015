"""The environment of a process: torchrun's, nobody's, or what another launcher has left."""

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.process import launcher
from greedypipe.launch.process.environment import Environment

TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "host",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
ALL = (*TORCHRUN, *launcher.COPIES, "SLURM_NTASKS", "SLURM_PROCID")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALL:
        monkeypatch.delenv(name, raising=False)


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Environment:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Environment.read()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Environment(0, 0, 1, 0)),
        (TORCHRUN, Environment(1, 0, 2, 3)),
        (TORCHRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, Environment(1, 0, 2, 3)),
        ({"WORLD_SIZE": "1"}, Environment(0, 0, 1, 0)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Environment(0, 0, 1, 0)),
        ({"MASTER_ADDR": "host", "MASTER_PORT": "29500"}, Environment(0, 0, 1, 0)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, Environment(0, 0, 1, 0)),
        ({"SLURM_STEP_NUM_TASKS": "1"}, Environment(0, 0, 1, 0)),
    ],
)
def test_an_environment_that_says_who_this_process_is(
    variables: dict[str, str], expected: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(monkeypatch, **variables) == expected


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 without RANK, MASTER_ADDR, MASTER_PORT; start with torchrun or"),
        ({"RANK": "3"}, "RANK=3 without WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start with torchrun or"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK=3 without RANK, WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0, WORLD_SIZE=2 without MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}, "without MASTER_ADDR, MASTER_PORT"),
        (TORCHRUN | {"RANK": "one"}, "RANK: got 'one', allowed: a whole number"),
        (TORCHRUN | {"RANK": "2"}, "RANK: got 2, allowed: below WORLD_SIZE=2"),
        (TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "-1"}, "TORCHELASTIC_RESTART_COUNT: got '-1'"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS=4 without RANK: this command was started 4 times"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, "SLURM_NTASKS=4 without RANK: this command was started 4 times"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2 without RANK"),
    ],
)
def test_what_another_launcher_has_left_is_one_line(
    variables: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(monkeypatch, **variables)
    (line,) = str(caught.value).splitlines()
    assert complaint in line and "torchrun" in line


def test_tasks_of_a_batch_script_are_remarked_on_in_a_run_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher.remark() == ""
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert launcher.remark().startswith("SLURM_NTASKS=4, but RANK is not set: this is a run of one process")
