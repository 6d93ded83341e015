"""Pages whose numbers come from benchmarks/results: none is stale, and none of their numbers was typed."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.book import result as book_result
from benchmarks.book.figure import DARK, HEIGHT, LIGHT, SMALL, WIDTH, figure
from benchmarks.book.markdown import at_least, machine, paragraphs, percent, setup, spread, table, within
from benchmarks.book.pages import ROOT, WHOLE, filled, pages
from benchmarks.book.regions import REGIONS
from benchmarks.book.result import anchor
from benchmarks.book.results import RESULTS

RESULTS_CODE = ROOT / "benchmarks" / "book" / "results"


@pytest.mark.parametrize(("path", "text"), [pytest.param(*page, id=page[0].name) for page in pages()])
def test_a_page_is_what_make_book_writes(path: Path, text: str) -> None:
    assert path.read_text() == text, f"{path.relative_to(ROOT)} is stale: run `make book`"


def test_a_changed_result_makes_the_pages_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "results"
    shutil.copytree(book_result.FOLDER, copy)
    answer = json.loads((copy / "hosts.json").read_text())
    answer["samples_per_s"]["100 Mbit/s"][0]["FIFO"] = [12345.0, 12345.0]
    (copy / "hosts.json").write_text(json.dumps(answer))
    before = WHOLE["docs/results.md"]()
    monkeypatch.setattr(book_result, "FOLDER", copy)
    assert "12,345" in WHOLE["docs/results.md"]() and "12,345" not in before


def test_every_result_has_a_section() -> None:
    assert sorted(result.stem for result in RESULTS) == sorted(path.stem for path in book_result.FOLDER.glob("*.json"))
    assert len({result.anchor for result in RESULTS}) == len(RESULTS)


def test_every_section_says_how_it_was_measured() -> None:
    for result in RESULTS:
        section = result.section()
        command, conditions = section.split("\n```\n")[-2:]
        assert command.splitlines()[-1 if "\\" not in command else -2].startswith("python -m benchmarks."), result.stem
        assert re.search(r"\d cores of an .+; Python [\d.]+, torch [\d.]+; ", conditions), result.stem
        assert re.search(r"\bn = \d|one simulation", conditions), result.stem


def typed_numbers(source: str) -> list[str]:
    """Texts outside of format specifications that look like a measured number: 1.5, 97%, 12 ms."""
    tree = ast.parse(source)
    forms = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) for part in ast.walk(node)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in forms
    ]
    number = re.compile(r"\d\.\d|\d ?%|\d (ms|s|us|samples/s|GB/s|MB)\b")
    return [text for text in texts if number.search(text) and not re.search(r"steps of about 1 ms", text)]


def test_no_measured_number_is_typed() -> None:
    assert {path.name: found for path in RESULTS_CODE.glob("*.py") if (found := typed_numbers(path.read_text()))} == {}


def test_a_typed_number_is_found() -> None:
    assert typed_numbers('def f(x):\n    return f"{x:.2f} of 98.1 at best"') == [" of 98.1 at best"]
    assert typed_numbers('def f(x):\n    return f"{x:.2f} with 4 stages"') == []


def test_a_region_is_filled_and_an_unknown_one_refused() -> None:
    page = "before <!-- book: isolated restart -->?<!-- /book --> after\n<!-- book: results -->\n<!-- /book -->\n"
    text = filled(page)
    assert text.startswith("before <!-- book: isolated restart -->" + REGIONS["isolated restart"]() + "<!-- /book --> after")
    assert f"<!-- book: results -->\n{REGIONS['results']()}\n<!-- /book -->" in text
    assert filled(text) == text
    with pytest.raises(ValueError, match="isolated start: unknown region, allowed: results"):
        filled("<!-- book: isolated start --><!-- /book -->")


def test_every_region_is_used() -> None:
    written = "".join(path.read_text() for path, _ in pages())
    assert [name for name in REGIONS if f"<!-- book: {name} -->" not in written] == []


def test_a_table_aligns_numbers_to_the_right() -> None:
    text = table(("name", "rate", "target"), [("a", "1,394 (1,329\N{EN DASH}1,423)", "&ge; 1, met"), ("b", "**7**", "")])
    assert text.splitlines()[1] == "| --- | ---: | --- |"


def test_words_for_numbers() -> None:
    found = {"median": 1.256, "min": 1.0, "max": 2.0}
    assert spread(found, ".2f") == "1.26 (1.00\N{EN DASH}2.00)"
    assert percent(0.98765, 2) == "98.77%"
    assert at_least(0.97, 0.97) == "&ge; 0.97, met" and at_least(0.9699, 0.97) == "&ge; 0.97, **missed**"
    assert at_least(0.5, None) == ""
    assert within(1.06, 0.95, 1.05).endswith("**missed**") and within(1.05, 0.95, 1.05).endswith(", met")
    assert setup(["model.name=mlp", "data.batch_size=8"]) == "Setup: mlp, batch 8, fp32"


def test_the_machine_is_named_with_its_gpus() -> None:
    hardware = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 16, "gpus": ["NVIDIA H100", "NVIDIA H100"]}
    assert machine({"hardware": hardware}) == "16 cores of an Intel Xeon, 2 x NVIDIA H100"


def test_prose_is_wrapped_and_tables_are_not() -> None:
    long = "word " * 60
    text = paragraphs(f"\n{long}\n\n| {long} |\n")
    prose, kept = text.split("\n\n")
    assert max(map(len, prose.splitlines())) <= 120 and kept == f"| {long} |"


def test_an_anchor_is_githubs() -> None:
    assert anchor("The planner: predicted against measured") == "the-planner-predicted-against-measured"
    assert anchor("CIFAR-10 accuracy") == "cifar-10-accuracy"


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_the_figure_is_readable_at_700_pixels(colours: object) -> None:
    text = figure(colours)  # type: ignore[arg-type]
    sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', text)]
    assert min(sizes) == SMALL and SMALL * 700 / WIDTH >= 12
    across = [float(x) + float(width) for x, width in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', text)]
    down = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)"', text)]
    assert max(across) <= WIDTH and max(down) <= HEIGHT - 8
