"""Where the figures of a run go besides its folder: Weights & Biases and TensorBoard, each optional and never fatal."""

from greedypipe.launch.reporting.trackers.harmless import make_trackers
from greedypipe.launch.reporting.trackers.interface import Run, Tracker

__all__ = ["Run", "Tracker", "make_trackers"]
