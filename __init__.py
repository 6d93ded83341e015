"""greedypipe: pipeline-parallel training without backward locking."""

__version__ = "0.2.0"
