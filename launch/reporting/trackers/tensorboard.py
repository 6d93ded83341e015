"""TensorBoard: event files in the run's folder."""

import yaml

from greedypipe.launch.reporting.trackers.interface import Run
from greedypipe.launch.reporting.trackers.values import block_values, evaluation_values, hyperparameters
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation

BEST = "accuracy/best"


class TensorBoardTracker:
    """Event files under tensorboard/, with the configuration as hyper-parameters and as text.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError:
            raise ImportError("tensorboard is not installed; pip install 'greedypipe[tensorboard]'") from None
        self._num_blocks = run.num_blocks
        self._writer = SummaryWriter(str(run.folder / "tensorboard"))
        # Not SummaryWriter.add_hparams, which makes a run of its own for them.
        for summary in hparams(hyperparameters(run.settings), {BEST: 0.0}):
            self._writer._get_file_writer().add_summary(summary)
        settings = yaml.safe_dump({section: dict(keys) for section, keys in run.settings.items()}, sort_keys=False)
        self._writer.add_text("configuration", f"```\n{settings}```")

    def log(self, row: StageRow) -> None:
        for _, values in block_values(row, self._num_blocks):
            for key, value in values.items():
                self._writer.add_scalar(key, value, row.step)

    def log_evaluation(self, evaluation: Evaluation, best: float) -> None:
        for key, value in evaluation_values(evaluation, best).items():
            self._writer.add_scalar(key, value, evaluation.epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
