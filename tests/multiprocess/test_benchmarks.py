"""Each benchmark's smallest size gives an answer of the right form."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import methods, recipes


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_failures_says_who_ended_the_run_and_how_long_it_took(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("failures", "--out", str(tmp_path / "failures.json"))
    results = json.loads((tmp_path / "failures.json").read_text())
    (outcome,) = results["outcomes"]
    assert outcome["strike"] == "kill -9" and outcome["names_the_stage"] and outcome["said_once"]
    assert outcome["exit_code"] != 0 and outcome["orphans"] == 0
    assert outcome["seconds"] > 0
    assert {"command", "hardware", "versions"} <= set(results)


@pytest.mark.timeout(200)
def test_accuracy_keeps_every_evaluation_and_draws_the_curves(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("accuracy", "--out", str(tmp_path / "digits"))
    results = json.loads((tmp_path / "digits.json").read_text())
    assert list(results["runs"]) == ["bp", "replay-slow1"]
    for runs in results["runs"].values():
        summary = runs["0"]
        assert 0 < summary["accuracy"]["final"] <= 1
        assert summary["command"].startswith("torchrun --nproc_per_node=")
    assert (tmp_path / "digits.png").stat().st_size > 10_000


@pytest.mark.timeout(200)
def test_methods_has_a_row_per_run_and_repeats_none(
    tmp_path: Path, run_benchmark: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", str(tmp_path / "methods.json"))
    run_benchmark("methods", *out, "--seconds", "0")
    assert not (tmp_path / "methods.json").exists()
    run_benchmark("methods", *out)
    runs = json.loads((tmp_path / "methods.json").read_text())["runs"]
    assert [(row["method"], row["head"], row["seed"]) for row in runs] == [
        ("back-propagation", "", 0),
        ("cross_entropy", "mlp_sr", 0),
        ("late_chain", "mlp_sr", 0),
    ]
    assert [len(row["accuracy"]["blocks"]) for row in runs] == [1, 4, 4] and not any(row["cause"] for row in runs)
    monkeypatch.setattr(methods, "run_case", lambda *arguments: pytest.fail("run again"))
    run_benchmark("methods", *out)


def test_of_a_method_that_failed_the_table_says_why() -> None:
    done = {"accuracy": {"final": 0.5, "blocks": [0.25, 0.5]}, "cause": ""}
    failed = {"accuracy": None, "cause": "loss is not finite"}
    settings = [*methods.Case("man_pp", "conv").overrides, "training.precision=fp32"]
    rows = [
        {"method": "man_pp", "head": "conv", "seed": seed, "settings": [*settings, f"training.seed={seed}"], **row}
        for seed, row in enumerate((done, failed))
    ]
    (summary,) = methods.summarise(rows)
    assert summary == {
        "method": "man_pp",
        "head": "conv",
        "runs": 2,
        "more": ["training.precision=fp32"],
        "final": [0.5],
        "heads": [0.25],
        "causes": ["loss is not finite"],
    }


@pytest.mark.timeout(200)
def test_links_compares_the_transports_and_encodings(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("links", "--out", str(tmp_path / "links"))
    results = json.loads((tmp_path / "links.json").read_text())
    assert {(row["transport"], row["encoding"]) for row in results["rows"]} == {
        ("shm", "same"),
        ("gloo", "same"),
        ("shm", "bf16"),
        ("shm", "int8"),
    }
    for row in results["rows"]:
        assert 0 < row["gb_per_s"]["min"] <= row["gb_per_s"]["median"] <= row["gb_per_s"]["max"]
        assert row["latency_us"]["median"] > 0
    assert set(results["shm_over_gloo"]["gb_per_s"]) == {"4 KiB", "1 MiB"}
    assert (tmp_path / "links.png").stat().st_size > 10_000


@pytest.mark.timeout(200)
def test_checkpoints_compares_runs_with_and_without(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("checkpoints", "--interval", "4", "--out", str(tmp_path / "checkpoints"))
    results = json.loads((tmp_path / "checkpoints.json").read_text())
    assert results["ratio"]["median"] > 0 and 0 < results["stalled_share"]["median"] < 1


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_fault_of_a_small_campaign_loses_anything(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("faults", "--out", str(tmp_path / "faults"))
    trials = json.loads((tmp_path / "faults.json").read_text())["trials"]
    assert {one["trial"]["fault"] for one in trials} == {"kill -9", "SIGTERM", "exception", "truncated checkpoint"}
    # A run of replay as short as this promises no accuracy; it must end by itself.
    assert [one["trial"] for one in trials if not one["is_right"] and one["trial"]["policy"] == "fifo"] == []
    assert all(one["exit_codes"][-1] == [0, 0, 0] for one in trials)
    assert all(one["orphans"] == 0 and one["leaked"] == [] for one in trials)
    # What strikes from outside may come when a short run has just ended; what a stage does itself cannot.
    assert {(one["trial"]["recovery"], one["trial"]["policy"]) for one in trials} == {
        ("restart", "fifo"),
        ("isolate", "fifo"),
        ("isolate", "replay"),
    }
    restarted = {one["trial"]["fault"]: one["detect_s"] for one in trials if one["attempts"] > 1}
    assert "exception" in restarted and all(seconds < 10 for seconds in restarted.values())


@pytest.mark.timeout(200)
def test_replicas_gives_accuracies_and_counts_every_sample(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("replicas", "--out", str(tmp_path / "replicas"))
    results = json.loads((tmp_path / "replicas.json").read_text())
    assert set(results["runs"]) == {"[1,1,1]", "[1,2,1]", "one block", "one block, two replicas"}
    for runs in results["runs"].values():
        assert 0 < runs[0]["final"] <= 1 and set(runs[0]["samples"]) == {1438}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_reuse_compares_every_limit_with_fifo(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("reuse", "--out", str(tmp_path / "reuse"))
    rows = {row["coupling"]: row for row in json.loads((tmp_path / "reuse.json").read_text())["rows"]}
    assert list(rows) == ["FIFO", "max_reuse=1", "max_reuse=2", "max_reuse=0"]
    assert rows["FIFO"]["reuse_mean"]["max"] == rows["max_reuse=1"]["reuse_mean"]["max"] == 1
    assert rows["max_reuse=2"]["reuse_mean"]["max"] <= 2
    assert all(0 < row["accuracy"]["median"] <= 1 for row in rows.values())


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_first_run_is_kept_as_it_was_printed(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("first_run", "--out", str(tmp_path / "first_run"))
    lines = json.loads((tmp_path / "first_run.json").read_text())["printed"]
    assert lines[0].startswith("epoch   1/1   accuracy ")
    assert sum(line.startswith("\N{BOX DRAWINGS LIGHT VERTICAL} ") for line in lines) == 4
    assert lines[-1] == ".../runs/vgg8b-digits-1"


@pytest.mark.timeout(200)
def test_feedback_is_never_faster_than_the_formula(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("feedback", "--parts", "latency", "--out", str(tmp_path / "feedback"))
    rows = json.loads((tmp_path / "feedback.json").read_text())["parts"]["latency"]["rows"]
    assert [(row["delay"], row["latency_s"]) for row in rows] == [(0, 0.0), (0, 0.01), (1, 0.0), (1, 0.01)]
    # Sleeping stages can be late on a busy machine, and never early.
    assert all(0 < row["throughput_over_formula"]["median"] < 1.02 for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_feedback_compares_methods_with_dgl(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("feedback", "--parts", "costs", "--out", str(tmp_path / "feedback"))
    dgl, late_chain = json.loads((tmp_path / "feedback.json").read_text())["parts"]["costs"]["rows"]
    assert (dgl["method"], dgl["counted_over_dgl"], dgl["step_over_dgl"]["median"]) == ("cross_entropy", 1, 1)
    assert late_chain["method"] == "late_chain" and 1.5 < late_chain["counted_over_dgl"] < 2.5
    assert late_chain["step_over_dgl"]["median"] > 0 and all(size > 0 for size in late_chain["peak_bytes"])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_recipes_have_accuracies_of_both_parts_and_go_on_where_they_were(
    tmp_path: Path, run_benchmark: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("mnist_1d", "--out", str(tmp_path / "answer"))
    run_benchmark("recipes", *asked)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert [len(row["test"]) for row in answer["runs"]] == [len(row["validation"]) for row in answer["runs"]] == [1, 4, 4]
    assert not any(row["cause"] for row in answer["runs"]) and (tmp_path / "answer.png").stat().st_size > 10_000
    assert answer["costs"][0]["macs"] > 0
    monkeypatch.setattr(recipes, "run_trial", lambda *arguments: pytest.fail("run again"))
    run_benchmark("recipes", *asked)
