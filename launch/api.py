"""The interface for scripts and notebooks: `greedypipe.train` trains like the command, `greedypipe.Run` reads the run."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.checkpoints.trained_blocks import plain_network, plan_of, trained_blocks
from greedypipe.launch.checkpoints.trained_network import find_checkpoint
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import dump_config
from greedypipe.launch.config.yaml_text import write_document
from greedypipe.launch.on_host.host_run import settle
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.exit_codes import REQUEUE
from greedypipe.launch.reporting.page.record import read_run
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.exits import features, outputs
from greedypipe.workers.data.sets.registry import open_data
from greedypipe.workers.data.source import held_out_batches
from greedypipe.workers.output import encodable
from greedypipe.workers.telemetry.results import Failure
from greedypipe.workers.telemetry.summary_file import read_summary


class RunFailed(RuntimeError):
    """A run has failed; `str` is the first cause.

    Attributes:
        folder: Folder of the run.
        code: Exit code of the run.
    """

    def __init__(self, cause: str, folder: Path, code: int) -> None:
        super().__init__(cause)
        self.folder = folder
        self.code = code


def train(
    config: str | Path | Mapping[str, Any] | None = None,
    *overrides: str,
    stages: int | None = None,
    resume: str | Path | None = None,
) -> "Run":
    """Trains a network on this host, one process per stage. Blocks until the run has ended, and prints its progress.

    The processes are started by a separate process, with the caller's import path: no `if __name__ == "__main__"` is
    needed around the call, and the caller may be a notebook, a thread, or use a GPU. Objects that a configuration names by
    import path must be in a module, not in a notebook's cells. Interrupting the call makes the run save and end; it ends at
    once with the calling process. The caller's random number generators are unchanged.

    Args:
        config: A YAML file, or its content as sections of keys; None for the bundled digits.
        overrides: Overrides of the form "section.key=value".
        stages: Number of processes; None for one per block, with its replicas.
        resume: "auto": continue in the newest folder of this run; the folder of a run or checkpoint: continue from there,
            in a new folder.

    Returns:
        The run; also if it was stopped by a signal, after saving.

    Raises:
        ConfigError: The configuration is wrong or impossible; one line per error. Nothing has been started.
        RunFailed: The run has failed.
    """
    with torch.random.fork_rng(devices=[]), _as_file(config) as path:
        plan, origin = settle(path, overrides, stages, None if resume is None else os.path.expanduser(str(resume)), print)
    code, last = _launch(plan, origin)
    if code not in (0, REQUEUE):
        raise RunFailed(_cause(origin.folder) or last, origin.folder, code)
    return Run(origin.folder)


class Run:
    """The results in a run's folder. The network is that of the run's end, or else of its newest complete checkpoint.

    Methods that take images expect them as in training: normalised, fp32 [N, C, H, W], on any device. They return fp32
    tensors on the CPU, without a graph, and read the network only once.

    Args:
        folder: Folder of the run, e.g. "runs/vgg8b-digits-1".
        overrides: Overrides of the run's configuration, e.g. "data.root=/elsewhere" or "placement.device=cpu".

    Raises:
        ValueError: The folder is not that of a run.
    """

    def __init__(self, folder: str | Path, *overrides: str) -> None:
        self.folder = Path(os.path.expanduser(folder))
        self._overrides = overrides
        read_run(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def summary(self) -> dict[str, Any]:
        """Content of summary.json: accuracies, times, figures of every stage; empty until the run has ended."""
        summary = read_run(self.folder).summary
        return asdict(summary) if summary else {}

    def metrics(self) -> Any:
        """Records of the training steps of all processes.

        Returns:
            A pandas.DataFrame if pandas is installed, else a list of dictionaries. Every row has the `stage` (its label)
            and the figures of metrics/stageK.jsonl: block, step, loss, time_s and so on.
        """
        run = read_run(self.folder)
        ranks = zip(run.labels, run.steps, strict=True)
        rows = [{"stage": label} | asdict(record) for label, records in ranks for record in records]
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)

    def network(self) -> nn.Sequential:
        """A copy of the trained network in evaluation mode, from images to outputs [N, classes]. Its children are the
        layers and the classifier under their names, with `_` for every dot."""
        return plain_network(self._blocks)

    def heads(self) -> list[nn.Module]:
        """Copies of the heads of all blocks in evaluation mode, from activation to outputs [N, classes]; the last one is the
        network's classifier."""
        return [copy.deepcopy(block.method.head).eval() for block in self._blocks]

    def features(self, x: Tensor, layer: str) -> Tensor:
        """The activation [N, ...] behind a layer, e.g. "conv3".

        Raises:
            ValueError: The network has no such layer.
        """
        return features(self._blocks, x, layer)

    def exits(self, x: Tensor) -> Tensor:
        """The outputs of every head in the network's order, [heads, N, classes]; for classification, logits."""
        return outputs(self._blocks, x)

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the test samples of the run's data: images as these methods expect them, and labels.

        Raises:
            ValueError: The data are missing, or have a class that the network does not know.
        """
        config, trained = self._plan.config.data, self._plan.data
        for batch in held_out_batches(config, open_data(config).load_test_for(trained), trained):
            yield batch.images, batch.labels

    @cached_property
    def _checkpoint(self) -> Path:
        return find_checkpoint(self.folder)

    @cached_property
    def _plan(self) -> Plan:
        with torch.random.fork_rng(devices=[]):
            return plan_of(self._checkpoint, ["training.compile=none", *self._overrides])

    @cached_property
    def _blocks(self) -> list[Block]:
        with torch.random.fork_rng(devices=[]):
            return trained_blocks(self._plan, self._checkpoint)


@contextlib.contextmanager
def _as_file(config: str | Path | Mapping[str, Any] | None) -> Iterator[str | None]:
    """A configuration as a file to load; errors in a mapping name it `config`."""
    if not isinstance(config, Mapping):
        yield None if config is None else str(config)
        return
    with tempfile.TemporaryDirectory(prefix="greedypipe-") as folder:
        path = Path(folder) / "config.yaml"
        try:
            path.write_text(write_document(dict(config)), encoding="utf-8")
            yield str(path)
        except ValueError as error:
            raise ConfigError(str(error).replace(str(path), "config").splitlines()) from None


def _launch(plan: Plan, origin: Origin) -> tuple[int, str]:
    """Runs a plan's processes under a separate parent, and prints their output; returns exit code and last line."""
    order = {
        "config": dump_config(plan.config),
        "origin": asdict(origin.note()),
        "num_processes": plan.placement.num_processes,
    }
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "greedypipe.launch.on_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        # Its own session: an interrupt of the caller's process group reaches the run only once, from here.
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    line = ""
    # The process ends when its input is closed: not before its output is.
    with contextlib.closing(process.stdin) as orders, contextlib.closing(process.stdout) as printed:
        try:
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            for line in printed:
                print(encodable(line, sys.stdout), end="", flush=True)
        except BaseException:
            process.send_signal(signal.SIGINT)
            printed.read()
            process.wait()
            raise
        process.wait()
    return process.wait(), line.strip().removeprefix("greedypipe: ")


def _cause(folder: Path) -> str:
    summary = read_summary(folder)
    return summary.cause if isinstance(summary, Failure) else ""
