"""When a stage counts as lost, what follows, and the exit codes that say how a process has ended."""

FAILED, WRONG_CONFIGURATION, INTERRUPTED = 1, 2, 130
REQUEUE = 75
"""Exit code of a run that has saved itself and wants to be started again (EX_TEMPFAIL of sysexits.h)."""
ALONE = 76
"""Exit code of a process that has failed by itself and may be started again alone (launch.recovery.keeper)."""
