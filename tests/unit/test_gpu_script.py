"""The script that needs a GPU: its runner, its files and what pages make of them, tried without one."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.book import gpus
from benchmarks.book import result as book_result
from tests.gpu import facts, status
from tests.gpu.facts import Facts, Setting
from tests.gpu.runner import LOG_FILE, run_steps
from tests.gpu.script import STEPS
from tests.gpu.steps import events, mapped, nccl_alone, nccl_lost, nccl_pair
from tests.gpu.steps import facts as facts_step

STEP_FILES = Path(facts_step.__file__).parent
PROGRAMS = {
    "works": "print('all is well')",
    "fails": "raise SystemExit('badly')",
    "hangs": "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{child}']); time.sleep(60)",
    "follows": "print('still run')",
}
CHILD = "import time, pathlib; time.sleep(1.5); pathlib.Path(r\\'{marker}\\').touch()"


def test_a_step_that_fails_or_hangs_stops_no_other_and_leaves_no_process(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    programs = PROGRAMS | {"hangs": PROGRAMS["hangs"].format(child=CHILD.format(marker=marker))}
    steps = {"works": 20.0, "fails": 20.0, "hangs": 0.6, "follows": 20.0}
    started = time.monotonic()
    ended = run_steps(steps, lambda name, limit_s: [sys.executable, "-c", programs[name]], tmp_path, 60, kill_s=0.2)
    assert [end["ok"] for end in ended] == [True, False, False, True]
    assert [end["timed_out"] for end in ended] == [False, False, True, False]
    assert facts.read(tmp_path) == ended
    log = (tmp_path / LOG_FILE).read_text()
    assert "===== works" in log and "all is well" in log and "badly" in log and "still run" in log
    time.sleep(max(0.0, started + 3 - time.monotonic()))
    assert not marker.exists(), "what the step had started went on without it"


def test_steps_without_time_are_left_out_and_said_so(tmp_path: Path) -> None:
    (end,) = run_steps({"late": 30.0}, lambda name, limit_s: [sys.executable], tmp_path, 12)
    assert end == {"step": "late", "name": "end", "ok": False, "left_out": "no time was left"}


def test_a_fact_is_on_the_disk_at_once_and_a_half_written_one_is_left_out(tmp_path: Path) -> None:
    found = Facts(tmp_path, "step")
    assert found.attempt("sum", lambda: {"sum": 2}) and not found.failed

    def divide() -> None:
        raise ZeroDivisionError("by nothing")

    assert not found.attempt("quotient", divide) and found.failed
    with (tmp_path / facts.FACTS_FILE).open("a") as file:
        file.write('{"step": "st')
    ok, failed = facts.read(tmp_path)
    assert (ok["name"], ok["ok"], ok["sum"]) == ("sum", True, 2)
    assert (failed["ok"], failed["error"]) == (False, "ZeroDivisionError: by nothing")


@pytest.mark.parametrize(
    "step", [facts_step, events, nccl_alone, mapped, nccl_pair, nccl_lost], ids=lambda step: step.__name__
)
def test_a_step_pretends_on_the_cpu(step: ModuleType, tmp_path: Path) -> None:
    found = Facts(tmp_path, step.__name__.rpartition(".")[2])
    step.run(found, Setting(tmp_path, tmp_path, 30, pretend=True))
    lines = facts.read(tmp_path) if (tmp_path / facts.FACTS_FILE).exists() else []
    assert [line for line in lines if not line["ok"]] == []
    assert bool(lines) == (step is not events)


def test_every_step_is_a_file_and_every_file_a_step() -> None:
    assert STEPS.keys() == {path.stem for path in STEP_FILES.glob("*.py")} - {"__init__"}


# What pages say

DEVICE = {"step": "facts", "name": "device", "ok": True, "gpu": "NVIDIA H200", "versions": {"cuDNN": "91900"}}
VERSIONS = {"step": "facts", "name": "versions", "ok": True, "versions": {"torch": "2.11.0+cu130", "CUDA": "13.0"}}
GRAPHS = next(path for path in gpus.PATHS if "graphs" in path.name)


@pytest.fixture
def leave_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves the file of a run of the script in which these facts came out so."""
    monkeypatch.setattr(book_result, "FOLDER", tmp_path)
    (tmp_path / "gpu").mkdir()
    numbers = iter(range(100))

    def leave(outcomes: dict[gpus.Fact, bool], when: str) -> None:
        lines = [VERSIONS, DEVICE, *({"step": step, "name": name, "ok": ok} for (step, name), ok in outcomes.items())]
        path = status.write(tmp_path / "gpu", lines)
        assert path is not None
        path.write_text(json.dumps(json.loads(path.read_text()) | {"when": when}))
        path.rename(path.with_name(f"gpu-{when}-{next(numbers)}.json"))

    return leave


def test_before_any_run_nothing_has_run_on_a_gpu(leave_run: Callable[..., None]) -> None:
    assert gpus.in_short() == f"none of the {len(gpus.PATHS)} paths that only a GPU runs has been run on one yet"
    assert gpus.paths_table().count(gpus.NOT_YET) == len(gpus.PATHS)


def test_a_run_is_told_with_its_gpu_day_and_versions(leave_run: Callable[..., None]) -> None:
    leave_run(dict.fromkeys(GRAPHS.facts, True), "2026-12-01")
    state = gpus.state_of(GRAPHS, gpus.read())
    assert str(state) == "run on NVIDIA H200, 2026-12-01, torch 2.11.0, CUDA 13.0, cuDNN 91900"
    assert gpus.in_short() == f"1 of the {len(gpus.PATHS)} paths that only a GPU runs have been run on NVIDIA H200"


def test_a_path_of_which_a_part_is_missing_has_not_been_run(leave_run: Callable[..., None]) -> None:
    leave_run({GRAPHS.facts[0]: True}, "2026-12-01")
    assert str(gpus.state_of(GRAPHS, gpus.read())) == gpus.NOT_YET


def test_the_newest_run_counts_and_a_failure_is_told(leave_run: Callable[..., None]) -> None:
    leave_run(dict.fromkeys(GRAPHS.facts, True), "2026-12-01")
    step, name = GRAPHS.facts[0]
    leave_run({(step, name): False}, "2026-12-02")
    assert str(gpus.state_of(GRAPHS, gpus.read())).endswith(f": {step}: {name}")
    assert gpus.in_short().endswith("and 1 failed there")
    leave_run({(step, name): True}, "2026-12-03")
    assert gpus.state_of(GRAPHS, gpus.read()).is_shown


def test_rows_of_the_newest_run_become_tables(tmp_path: Path, leave_run: Callable[..., None]) -> None:
    assert gpus.figures() == f"None: {gpus.NOT_YET}."
    rows = [{"block": 0, "eager_ms": 4.5, "graph_ms": None}, {"block": 1, "eager_ms": 2.0, "graph_ms": 0.5}]
    found = [
        VERSIONS,
        DEVICE,
        *({"step": "rows", "name": "row of stage", "ok": True, "table": "stage", **row} for row in rows),
    ]
    status.write(tmp_path / "gpu", found)
    assert "stage:\n\n| block | eager ms | graph ms |" in gpus.figures() and "| 1 | 2.0 | 0.5 |" in gpus.figures()


def test_a_run_without_a_gpu_leaves_nothing_for_the_pages(tmp_path: Path) -> None:
    assert status.write(tmp_path, [VERSIONS]) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [path for path in gpus.PATHS if path.facts], ids=lambda path: path.name)
def test_what_a_page_asks_for_is_what_a_step_finds_out(path: gpus.CudaPath) -> None:
    for step, name in path.facts:
        # Names that are made of parts are looked for without what is put in.
        stem = name.removeprefix("rank 1: ").removesuffix(": no wait").removesuffix(", rank 1")
        source = (STEP_FILES / f"{step}.py").read_text()
        assert f'"{stem}"' in source or f': {stem}"' in source, f"{step}: {name}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_script_pretends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu.script", str(tmp_path), "--pretend", "--budget-s", "540"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not list(tmp_path.glob("gpu-*.json")), "it has not run on a GPU"
