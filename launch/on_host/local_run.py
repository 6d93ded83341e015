"""Runs a whole pipeline as real processes of this host and keeps what they print: for rehearsals, benchmarks and tests."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.config.loader import dump_config, load_config
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.on_host.ranks import Order, Ranks, output_of


def run_pipeline(
    overrides: Sequence[str],
    num_processes: int,
    folder: Path,
    timeout_s: float = 60,
    absent: Sequence[int] = (),
    config: str | None = None,
    goes_on: bool = False,
    enter: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs a pipeline to its end; ranks that are still there after `timeout_s` are killed and have exit code -9.

    Args:
        overrides: Of the form section.key=value, upon `config`.
        folder: The run's; made here.
        absent: Ranks that are never started.
        config: A YAML file; None for the defaults.
        goes_on: The folder is an earlier run's: continue from its newest complete checkpoint.
        enter: Called in each process with its rank, when it has connected to the store, to move it to another place.
            Picklable.

    Raises:
        ConfigError: A key or a value is wrong. Impossible combinations end the ranks.
    """
    text = dump_config(load_config(config, overrides))
    folder.mkdir(exist_ok=goes_on)
    origin = None if goes_on else Origin(folder).note()
    order = Order(text, folder, origin, num_processes, prints_into_folder=True, enter=enter)
    ranks = Ranks(order, absent)
    with ranks:
        deadline = time.monotonic() + timeout_s
        while ranks.running and (left_s := deadline - time.monotonic()) > 0:
            ranks.wait(left_s)
    printed = [output_of(folder, rank).read_text(encoding="utf-8", errors="replace") for rank in ranks.exit_codes]
    return Outcome(list(ranks.exit_codes.values()), printed, folder)
