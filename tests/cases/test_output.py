"""Output that the terminal's encoding has no letters for: it is escaped, and fails nothing."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from greedypipe.launch.on_host import local_run
from greedypipe.workers.output import encodable
from tests.multiprocess.harness import TINY

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from greedypipe.launch.config.command_line import command

@command
def main():
    print("größe", "\\udcff")
    raise ValueError("Straße")

main()
"""


@pytest.mark.parametrize(
    ("variables", "letters"),
    [
        ({"PYTHONIOENCODING": "ascii"}, (b"gr\\xf6\\xdfe", b"Stra\\xdfe")),
        ({"PYTHONIOENCODING": "latin-1"}, (b"gr\xf6\xdfe", b"Stra\xdfe")),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, (b"gr\\xf6\\xdfe", b"Stra\\xdfe")),
        ({"PYTHONUTF8": "1"}, ("größe".encode(), "Straße".encode())),
    ],
)
def test_a_command_prints_what_it_can(variables: dict[str, str], letters: tuple[bytes, bytes], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "LC_ALL", "LANG")}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment | {"PYTHONPATH": str(ROOT)} | variables, capture_output=True
    )
    assert (done.returncode, done.stdout) == (1, letters[0] + b" \\udcff\n")
    assert done.stderr == b"greedypipe: ValueError: " + letters[1] + b"\n"


def test_a_line_for_somebody_elses_stream_is_escaped() -> None:
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert encodable("größe", ascii_stream) == "gr\\xf6\\xdfe" and encodable("größe", io.StringIO()) == "größe"


def test_a_run_of_a_name_in_other_letters(tmp_path: Path) -> None:
    """Its folder, its tables and its files; ranks are forks with the encodings of this process."""
    outcome = local_run.run_pipeline([*TINY, "partition.blocks=1"], 1, tmp_path / "größe-круг")
    assert outcome.exit_codes == [0], outcome.printed
    assert outcome.summary["status"] == "finished" and "größe-круг" in outcome.printed[0]
