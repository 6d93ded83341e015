"""What a failing process leaves: one line, a file with the traceback, and a word for torchrun."""

import json
import sys
from pathlib import Path

import pytest

from greedypipe.launch.config.command_line import CommandLine, command
from greedypipe.workers.errors import MOST_CHARACTERS, tell_torchrun, with_traceback


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_what_nobody_has_foreseen_is_one_line_and_its_traceback_a_file(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "stage1.traceback"
    line = with_traceback(raised(TypeError("no such\nthing ü\udcff")), path)
    assert line == f"TypeError: no such thing ü\udcff; the traceback is in {path}"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("Traceback") and "raise error\nTypeError: no such\nthing ü\\udcff" in text


def test_what_our_checks_raise_says_everything_by_itself(tmp_path: Path) -> None:
    assert with_traceback(raised(ValueError("wrong")), tmp_path / "trace") == "ValueError: wrong"
    assert (tmp_path / "trace").exists()


def test_a_page_of_advice_is_cut_and_a_disk_that_refuses_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = with_traceback(raised(RuntimeError("advice " * 1000)), tmp_path / "file" / "trace")
    assert line.startswith("RuntimeError: advice advice") and len(line) < MOST_CHARACTERS + 30


def test_torchrun_is_told_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    tell_torchrun("nobody listens")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    tell_torchrun("stage 1 died")
    found = json.loads((tmp_path / "error.json").read_text(encoding="utf-8"))
    assert found["message"]["message"] == found["message"]["extraInfo"]["py_callstack"] == "stage 1 died"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("from a library"), 1, "greedypipe: RuntimeError: from a library; the traceback is in "),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(75), 75, ""),
    ],
)
def test_a_command_ends_with_one_line_and_a_code(
    error: BaseException,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @command
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert lines == ([] if not said else lines[:1]) and "".join(lines).startswith(said)


def test_wrong_arguments_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["greedypipe export", "--bogus"])
    with pytest.raises(SystemExit) as caught:
        CommandLine("x").parse_intermixed_args()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "greedypipe: unrecognized arguments: --bogus; see greedypipe export --help\n"
