"""What a person sees: tables and lines, on a terminal and elsewhere."""

import errno
import io
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch.distributed import HashStore

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.reporting.monitor import Monitor, expected_epochs
from greedypipe.launch.reporting.screen import HarmlessScreen, Lines, Screen, Terminal
from greedypipe.launch.reporting.tables import evaluation_line, headline, live_table, progress_line, start_table
from greedypipe.pipeline.methods import METHOD_FAMILY
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry import machine
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import EvaluationPart, Gpu, Passed, StageRow
from greedypipe.workers.telemetry.results import Evaluation
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.topics import PASSED, STATUS, Topic, evaluation_of

TINY = ["model.width=0.1", "partition.blocks=2", "training.epochs=2"]


def make(overrides: list[str]) -> Plan:
    return make_plan(load_config(None, [*TINY, *overrides]), 2)


def status(stage: int, step: int = 0) -> StageStatus:
    result = StageStatus(Seat(stage, stage), [stage], 0, "host")
    result.step, result.loss = step, {stage: 1.25} if step else {}
    return result


def part_of_evaluation(stage: int, samples: int) -> EvaluationPart:
    """Of a stage of two, about half of whose samples are right in the first and three quarters in the second."""
    return EvaluationPart(
        1, samples, {stage: samples * (2 + stage) // 4}, samples if stage else None, {stage: samples * 0.5}
    )


def post_part(board: Board, stage: int, part: EvaluationPart) -> None:
    """As a process does at the end of a pass."""
    board.post(evaluation_of(part.epoch), stage, part)
    board.post(PASSED, stage, Passed(part.epoch, time.time()))


def rendered(table: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


class RecordingTracker:
    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self.evaluations: list[tuple[int, float]] = []
        self.closed = False

    def log(self, row: StageRow) -> None:
        self.rows.append((row.stage, row.step))

    def log_evaluation(self, evaluation: Evaluation, best: float) -> None:
        self.evaluations.append((evaluation.epoch, best))

    def close(self) -> None:
        self.closed = True


def watch(tmp_path: Path, plan: Plan, screen: Screen, *, evaluate: bool) -> tuple[Monitor, RecordingTracker]:
    """A monitor over a board on which everything has happened before it looks."""
    (tmp_path / "metrics").mkdir()
    board, tracker = Board(HashStore(), 2), RecordingTracker()
    for stage in range(2):
        board.post(STATUS, stage, status(stage, step=5).row())
        if evaluate:
            post_part(board, stage, part_of_evaluation(stage, plan.data.test_samples))
    with Monitor(board, plan, tmp_path, expected_epochs(plan, 0, ()), [tracker], screen) as monitor:
        pass
    return monitor, tracker


def test_the_start_table_shows_layers_parameters_shapes_and_bytes_on_the_link() -> None:
    plan = make(["head.name=mlp_sr"])
    text = rendered(start_table(plan))
    assert "conv1 .. conv3" in text and "classifier" in text and "mlp_sr" in text
    assert f"{plan.layout_after(0).slot_bytes:,}" in text
    assert "DGL, fifo links, 2 blocks in 2 processes" in headline(plan)
    late = plan.config.model_copy(update={"method": METHOD_FAMILY.choose({"name": "late_chain"})})
    assert "late_chain, fifo links, 2 blocks in 2 processes" in headline(replace(plan, config=late))


@pytest.mark.parametrize(
    ("cpuinfo", "precision", "gpus", "is_told"),
    [
        ("flags\t\t: avx2 avx512f", "bf16", [None, None], True),
        ("flags\t\t: avx2 avx512f", "bf16", [Gpu("cuda:0", "H", "a"), None], True),
        ("flags\t\t: avx2 avx512f", "bf16", [Gpu("cuda:0", "H", "a"), Gpu("cuda:1", "H", "b")], False),
        ("flags\t\t: avx2 avx512f", "fp32", [None, None], False),
        ("flags\t\t: avx512f avx512_bf16", "bf16", [None, None], False),
        ("Features\t: asimd bf16", "bf16", [None, None], False),
        ("", "bf16", [None, None], False),
    ],
)
def test_who_asks_a_processor_without_bf16_for_it_is_told(
    cpuinfo: str, precision: str, gpus: list[Gpu | None], is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: ["model name\t: X", cpuinfo])
    assert ("no instructions for bf16" in headline(make([f"training.precision={precision}"]), gpus)) == is_told


def test_one_block_is_called_back_propagation() -> None:
    plan = make_plan(load_config(None, ["partition.blocks=1"]), 1)
    assert "back-propagation" in headline(plan)


def test_the_live_table_has_a_line_per_stage_also_before_it_is_there() -> None:
    text = rendered(live_table([status(0, step=3).row(), None], ["0", "1"], total_steps=46))
    assert "3/46" in text and "1.250" in text
    assert text.count("starting") == 2


def test_the_progress_line_says_where_every_stage_is() -> None:
    assert progress_line([status(0, 7).row(), status(1, 5).row()], 46).startswith("step 7 5 of 46   loss 1.250 1.250")
    assert progress_line([status(0).row(), None], 46) == "starting: starting"
    assert progress_line([None], 46) == ""


def test_the_evaluation_line_ends_with_the_ensemble_where_there_are_heads() -> None:
    two = Evaluation(1, [0.5, 0.75], 0.8)
    assert evaluation_line(two, 2) == "epoch   1/2   accuracy 0.7500   heads 0.5000   ensemble 0.8000"
    assert evaluation_line(Evaluation(2, [0.5], 0.5), 2) == "epoch   2/2   accuracy 0.5000"


def test_a_complete_evaluation_is_printed_kept_and_tracked_once(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=140)
    monitor, tracker = watch(tmp_path, make([]), Lines(console, 1000), evaluate=True)
    samples = make([]).data.test_samples
    accuracies = [samples * 2 // 4 / samples, samples * 3 // 4 / samples]
    assert monitor.evaluations == [Evaluation(1, accuracies, 1.0, [0.5, 0.5])]
    assert tracker.evaluations == [(1, accuracies[1])] and tracker.closed and tracker.rows == [(0, 5), (1, 5)]
    assert json.loads((tmp_path / "metrics" / "evaluations.jsonl").read_text()) == asdict(monitor.evaluations[0])
    assert console.file.getvalue().count(f"accuracy {accuracies[1]:.4f}") == 1  # type: ignore[attr-defined]


def test_a_pass_that_a_stage_has_missed_in_part_is_no_evaluation_and_holds_up_none(tmp_path: Path) -> None:
    plan = make([])
    (tmp_path / "metrics").mkdir()
    board, console = Board(HashStore(), 2), Console(file=io.StringIO(), width=140)
    for stage in range(2):
        board.post(STATUS, stage, status(stage, step=5).row())
        post_part(board, stage, part_of_evaluation(stage, plan.data.test_samples - stage))
        post_part(board, stage, replace(part_of_evaluation(stage, plan.data.test_samples), epoch=2))
    with Monitor(board, plan, tmp_path, expected_epochs(plan, 0, ()), [], Lines(console, 1000)) as monitor:
        pass
    assert [one.epoch for one in monitor.evaluations] == [2]


class CountingBoard(Board):
    """A board that counts what it is asked."""

    reads = 0

    def read(self, topic: Topic[Any]) -> list[Any]:
        self.reads += 1
        return super().read(topic)

    def is_complete(self, topic: Topic[Any]) -> bool:
        self.reads += 1
        return super().is_complete(topic)


def test_a_look_costs_the_same_however_many_evaluations_are_planned(tmp_path: Path) -> None:
    plan, costs = make([]), []
    for planned in (10, 10_000):
        folder = tmp_path / str(planned)
        (folder / "metrics").mkdir(parents=True)
        board = CountingBoard(HashStore(), 2)
        monitor = Monitor(board, plan, folder, range(1, planned + 1), [], Lines(Console(file=io.StringIO()), 1000))
        for epoch in range(1, 6):
            for stage in range(2):
                post_part(board, stage, replace(part_of_evaluation(stage, plan.data.test_samples), epoch=epoch))
            for _ in range(10):
                monitor.keep_evaluations()
        assert [one.epoch for one in monitor.evaluations] == [1, 2, 3, 4, 5]
        costs.append(board.reads)
    assert costs[0] == costs[1] <= 5 * 10 + 5 * 2


def test_evaluations_that_another_thread_has_recorded_are_tracked_by_the_monitors_own(tmp_path: Path) -> None:
    plan, board, tracker = make([]), Board(HashStore(), 2), RecordingTracker()
    (tmp_path / "metrics").mkdir()
    monitor = Monitor(board, plan, tmp_path, [1], [tracker], Lines(Console(file=io.StringIO()), 1000))
    for stage in range(2):
        post_part(board, stage, part_of_evaluation(stage, plan.data.test_samples))
    monitor.keep_evaluations()
    assert [one.epoch for one in monitor.evaluations] == [1] and tracker.evaluations == []
    with monitor:
        pass
    assert [epoch for epoch, _ in tracker.evaluations] == [1]


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_display_that_fails_is_told_once_and_costs_neither_evaluations_nor_trackers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = HarmlessScreen(Lines(Console(file=FullDisk()), 1e-9))
    monitor, tracker = watch(tmp_path, make([]), screen, evaluate=True)
    assert [one.epoch for one in monitor.evaluations] == [epoch for epoch, _ in tracker.evaluations] == [1]
    assert tracker.closed
    told = "greedypipe: the display has failed, training goes on: OSError: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == told


def test_the_last_pass_counts_as_it_was_repeated_for_a_process_that_came_back(tmp_path: Path) -> None:
    plan, board = make([]), Board(HashStore(), 2)
    (tmp_path / "metrics").mkdir()
    samples, last = plan.data.test_samples, plan.config.training.epochs
    monitor = Monitor(board, plan, tmp_path, [last], [], Lines(Console(file=io.StringIO()), 1000))
    with monitor:
        for correct in (samples // 2, samples):
            for stage in range(2):
                post_part(board, stage, EvaluationPart(last, samples, {stage: correct}, correct if stage else None))
            monitor.keep_evaluations()
    assert monitor.evaluations == [Evaluation(last, [1.0, 1.0], 1.0, [None, None])]
    assert len((tmp_path / "metrics" / "evaluations.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("console_interval_s", "lines"), [(1e-9, 1), (1000, 0)])
def test_progress_lines_come_every_interval_where_there_is_no_terminal(
    console_interval_s: float, lines: int, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=140)
    watch(tmp_path, make([]), Lines(console, console_interval_s), evaluate=False)
    assert console.file.getvalue().count("step 5 5 of") == lines  # type: ignore[attr-defined]


def test_on_a_terminal_one_table_is_redrawn_and_taken_away(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=140, force_terminal=True)
    watch(tmp_path, make([]), Terminal(console), evaluate=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "samples/s" in text and "\x1b[2K" in text
