"""Values that cannot be used are refused in one line, before anything starts."""

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host.host_run import settle


@pytest.mark.parametrize(
    "settings",
    [
        ["faults.timeout_s=.inf"],
        ["faults.timeout_s=3000000"],
        ["faults.timeout_s=0.001"],
        ["faults.timeout_s=.nan"],
        ["optimizer.lr=.inf"],
        ["optimizer.weight_decay=.inf"],
        ["optimizer.schedule=multistep", "optimizer.milestones=[1, 99999999999999999999]"],
        ["buffers.capacity=99999999999999999999"],
        ["link.slots=99999999999999999999"],
        ["placement.threads=2147483648"],
        ["training.epochs=99999999999999999999"],
        [f"training.epochs={'9' * 4000}"],
        [f"training.epochs={'9' * 5000}"],
        ["optimizer.lr=inf"],
        ["training.seed=9223372036854775808"],
        ["model.width=1e308"],
        ["data.name=synthetic", "data.classes=2147483648"],
        ["data.name=synthetic", "data.samples=99999999999999999999"],
        ["debug.slow_stage=0", "debug.slow_link_s=.inf"],
        ['run.folder="a\\0b"'],
        ['run.name="a/b"'],
        ["run.name=.."],
        ["run.name=/tmp/x"],
        ["run.name=-rf"],
        ['run.name="a\\eb"'],
        [f"run.name={'x' * 300}"],
    ],
    ids=lambda settings: settings[-1][:40],
)
def test_they_are_refused_in_one_line(settings: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(None, settings, 3, None, print)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"command line: {settings[-1].partition('=')[0]}: got ")
    assert "allowed: " in line and line.isprintable() and len(line) < 600


def test_large_values_that_mean_something_are_taken() -> None:
    load_config(None, ["training.seed=9223372036854775807", "data.batch_size=2147483647", "run.name=a b.c_é-1"])
