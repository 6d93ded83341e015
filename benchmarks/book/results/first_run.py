"""What `make run` prints (benchmarks.first_run): shown in README.md, so it has a section only for its conditions."""

from benchmarks.book.result import Answer, Result


def _text(answer: Answer) -> str:
    return f"""
The end of what `make run` prints: 4 processes, handwritten digits. The accuracy is the same for every number of processes;
another processor rounds differently and may differ by an image or two.

{printed(answer)}
"""


def printed(answer: Answer) -> str:
    """The printed lines, as a block."""
    return "```\n" + "\n".join(answer["printed"]) + "\n```"


FIRST_RUN = Result("first_run", "A first run", lambda answer: "n = 1", _text)
