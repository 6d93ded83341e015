"""Prints what every stage of a run is doing, whom it waits for and since when.

    greedypipe status RUN [--follow]

Reads status.json, which the first stage of a live run writes twice a second; works on any host that reaches the folder.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from rich.live import Live

from greedypipe.launch.config.command_line import CommandLine, command, user_path
from greedypipe.launch.reporting.console import standard_output
from greedypipe.launch.reporting.fitting import Column, FittingTable
from greedypipe.launch.reporting.status_file import read_ending, read_status
from greedypipe.workers.output import shown
from greedypipe.workers.telemetry.diagnosis import judge
from greedypipe.workers.telemetry.records import RunStatus

REFRESH_S = 0.5
STALE_S = 5.0
COLUMNS = (
    Column("stage", "left"),
    Column("process", "left", rank=3),
    Column("batch_id", rank=2),
    Column("step"),
    Column("doing", "left", rank=1, shortest=14),
    Column("for s"),
    Column("which means", "left", shortest=18),
)


def status_table(status: RunStatus, ended: str, now_s: float) -> FittingTable:
    """One row per process.

    Args:
        ended: How the run has ended; empty if that is not known.
    """
    age_s = now_s - status.unix_s
    ended = ended or ("no updates: the run was killed or is stopped" if age_s > STALE_S else "")
    title = f"as of {age_s:,.1f} s ago" + (f": {ended}" if ended else "")
    table = FittingTable(COLUMNS, title)
    rows, labels = status.stages, status.labels
    for label, row, verdict in zip(labels, rows, judge(rows, labels, status.unix_s), strict=True):
        if row is None:
            table.add_row(label, *[""] * 5, verdict)
            continue
        table.add_row(
            label,
            f"{row.pid} on {row.host}",
            "" if row.batch_id < 0 else str(row.batch_id),
            f"{row.step}/{status.total_steps}",
            row.doing,
            f"{row.for_s:.1f}",
            verdict,
        )
    return table


def _table(run: Path) -> FittingTable:
    return status_table(read_status(run), read_ending(run), time.time())


@command
def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("run", type=user_path, help="the run's folder, e.g. runs/vgg8b-digits-1")
    parser.add_argument("--follow", action="store_true", help="repeat until Ctrl-C")
    arguments = parser.parse_intermixed_args()
    console = standard_output(150)
    try:
        table = _table(arguments.run)
        if not arguments.follow:
            console.print(table)
            return
        with Live(table, console=console, auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_S)
                live.update(_table(arguments.run), refresh=True)
    except ValueError as error:
        sys.exit(f"greedypipe: {shown(error)}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
