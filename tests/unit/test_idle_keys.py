"""Keys of the configuration file that an override leaves without effect are dropped; any other such key is an error."""

from pathlib import Path

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import dump_config, load_config


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("optimizer: {schedule: step, step_epochs: 5, gamma: 0.5}", "optimizer.schedule=cosine"),
        ("optimizer: {schedule: multistep, milestones: [3]}", "optimizer.schedule=constant"),
        ("optimizer: {nesterov: true}", "optimizer.momentum=0"),
        ("faults: {policy: isolate, max_restarts: 5}", "faults.policy=restart"),
        ("logging: {trace_batches: 5, trace_start: 7}", "logging.trace_batches=0"),
        ("debug: {slow_stage: 1, slow_factor: 4}", "debug.slow_stage=-1"),
        ("buffers: {policy: replay, max_reuse: 0, selector: newest}", "buffers.policy=fifo"),
        ("logging: {wandb: true, wandb_tags: [a]}", "logging.wandb=false"),
        ("head: {name: conv, width: 0.5}", "method.name=pred"),
        ("{method: {name: dni}, feedback: {delay: 3}}", "method.name=cross_entropy"),
    ],
)
def test_an_override_wins_over_what_it_makes_idle(text: str, override: str, tmp_path: Path) -> None:
    assert load_config(write(tmp_path, text), [override]) == load_config(None, [override])


def test_what_is_idle_in_the_file_itself_stays_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "optimizer: {schedule: cosine, step_epochs: 5}")
    for overrides in ([], ["optimizer.schedule=constant"], ["training.epochs=2"]):
        with pytest.raises(ConfigError, match=r"config\.yaml: optimizer\.step_epochs: got 5, which has no effect"):
            load_config(path, overrides)


def test_what_was_idle_in_a_run_that_had_other_defaults_is_dropped(tmp_path: Path) -> None:
    saved = dump_config(load_config(None, ["optimizer.lr=0.3"]))
    assert "max_reuse: 2" in saved and "gamma: 0.2" in saved
    earlier = saved.replace("max_reuse: 2", "max_reuse: 0").replace("gamma: 0.2", "gamma: 0.1")
    assert dump_config(load_config(write(tmp_path, earlier), [])) == saved
    replayed = load_config(write(tmp_path, earlier), ["buffers.policy=replay"])
    assert replayed.buffers.max_reuse == 0


def test_what_the_command_line_itself_makes_idle_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"command line: optimizer\.step_epochs: got 5, which has no effect"):
        load_config(None, ["optimizer.schedule=cosine", "optimizer.step_epochs=5"])


@pytest.mark.parametrize(
    ("text", "overrides", "blocks", "boundaries"),
    [
        ("partition: {boundaries: [conv2, conv4]}", [], 3, ("conv2", "conv4")),
        ("", ["partition.boundaries=[conv4]"], 2, ("conv4",)),
        ("partition: {blocks: 4}", ["partition.boundaries=[conv4]"], 2, ("conv4",)),
        ("partition: {blocks: 3, boundaries: [conv2, conv4]}", ["partition.blocks=2"], 2, ()),
        ("partition: {blocks: 3, boundaries: [conv2, conv4]}", ["partition.boundaries=[conv3]"], 2, ("conv3",)),
        ("partition: {blocks: 3, boundaries: [conv2, conv4]}", ["partition.boundaries=[]"], 3, ()),
        ("partition: {blocks: 3, boundaries: [conv2, conv4]}", ["partition.boundaries=auto"], 3, "auto"),
    ],
)
def test_boundaries_set_the_number_of_blocks(
    text: str, overrides: list[str], blocks: int, boundaries: tuple[str, ...] | str, tmp_path: Path
) -> None:
    partition = load_config(write(tmp_path, text), overrides).partition
    assert (partition.blocks, partition.boundaries) == (blocks, boundaries)
