"""Writes a run as one self-contained page: curves, stages, waits, staleness, and a timeline of a few batches.

greedypipe report runs/vgg8b-digits-1 [--out FILE]
"""

import sys

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from greedypipe.launch.config.command_line import CommandLine, command, user_path
from greedypipe.launch.reporting.page.page import page
from greedypipe.launch.reporting.page.record import read_run
from greedypipe.workers.output import shown


@command
def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("run", type=user_path, help="the run's folder, e.g. runs/vgg8b-digits-1")
    parser.add_argument("--out", type=user_path, help="file to write (default: report.html in that folder)")
    arguments = parser.parse_intermixed_args()
    out = arguments.out or arguments.run / "report.html"
    try:
        text = page(read_run(arguments.run))
        out.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.exit(f"greedypipe: {shown(error)}")
    print(out)


if __name__ == "__main__":
    main()
