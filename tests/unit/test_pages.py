"""Pages that can be followed: links lead somewhere, files and keys exist, commands are accepted, examples work."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.book.pages import ROOT, WHOLE
from benchmarks.book.result import anchor
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.help import describe_keys
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.heads import HEADS
from greedypipe.pipeline.methods import METHODS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BY_HAND = [page for page in PAGES if page.relative_to(ROOT).as_posix() not in WHOLE]
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_README_LINES = 200
EXAMPLES = sorted((ROOT / "examples").glob("own_*"))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links to files or headings that do not exist."""
    found = []
    for target in (one or other for one, other in LINK.findall(FENCE.sub("", text))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (fragment and fragment not in anchors(text if path == page else path.read_text())):
            found.append(target)
    return found


def anchors(text: str) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


def test_a_broken_link_is_found() -> None:
    page = ROOT / "docs" / "planning.md"
    text = "# One place\n[a](#one-place) [b](#other) [c](results.md#throughput) [d](results.md#no) [e](nowhere.md)"
    assert broken_links(page, text) == ["#other", "results.md#no", "nowhere.md"]


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        names = [(one or other).partition("#")[0] for one, other in LINK.findall(page.read_text())]
        found = {(page.parent / name).resolve() for name in names if name.endswith(".md")}
        todo += sorted(found - seen - set(todo))
    assert seen == set(PAGES)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


def missing_files(text: str) -> list[str]:
    """Files of ours, benchmarks and make targets that a page names and that do not exist."""
    paths = re.findall(
        r"(?<![\w./-])(?:launch|pipeline|workers|buffers|configs|deploy|tests|docs|benchmarks|examples)/[\w./-]*\w", text
    )
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"`make (\w+)`|^make (\w+)", text, re.MULTILINE)
    return [
        *(path for path in paths if not (ROOT / path).exists() and not list(ROOT.glob(f"{path}*"))),
        *(name for name in re.findall(r"-m (benchmarks\.\w+)", text) if not _is_module(name)),
        *(one or other for one, other in targets if f"\n{one or other}:" not in makefile),
    ]


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


@each_page
def test_what_a_page_names_exists(page: Path) -> None:
    assert missing_files(page.read_text()) == []


def test_a_missing_file_is_found() -> None:
    text = "`workers/links/carrier.py` and `buffers/`, python -m benchmarks.moon, `make tea`\nmake run"
    assert missing_files(text) == ["workers/links/carrier.py", "benchmarks.moon", "tea"]


def unknown_keys(text: str) -> list[str]:
    """Keys of the configuration, as section.key, that do not exist."""
    known = set(re.findall(r"^ +(\w+\.\w+)=", describe_keys(), re.MULTILINE))
    sections = {key.partition(".")[0] for key in known}
    text = text.replace("`model.json`", "")  # a file, which is called like a section
    named = re.findall(r"(?<![\w./-])([a-z]+\.[a-z_]+)=|`([a-z]+\.[a-z_]+)`", text)
    return sorted(
        {key for key in (one or other for one, other in named) if key.partition(".")[0] in sections and key not in known}
    )


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: page.name)
def test_keys_that_a_page_names_exist(page: Path) -> None:
    assert unknown_keys(page.read_text()) == []


def test_an_unknown_key_is_found() -> None:
    assert unknown_keys("`buffers.size` and buffers.policy=fifo and `training.epoch=3`") == [
        "buffers.size",
        "training.epoch",
    ]


def commands(text: str) -> Iterator[list[str]]:
    """Every command that starts or plans a run, in words, without its comment."""
    for language, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if not language else []:
            words = shlex.split(line, comments=True)
            if words[:2] in (["greedypipe", "train"], ["greedypipe", "plan"]) or "launch/run.py" in words:
                yield words


def refusal(words: list[str]) -> str:
    """Why a command's configuration is refused, without looking at data; empty where it is not."""
    config = words[words.index("--config") + 1] if "--config" in words else "configs/digits.yaml"
    overrides = [word for word in words if re.match(r"[a-z]+\.[a-z_]+=", word)]
    try:
        load_config(str(ROOT / config), overrides)
    except ConfigError as error:
        return f"{shlex.join(words)}: {error}"
    return ""


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: page.name)
def test_commands_are_accepted(page: Path, own_code: None) -> None:
    assert [found for words in commands(page.read_text()) if (found := refusal(words))] == []


def test_a_wrong_command_is_found() -> None:
    (words,) = commands("```\ngreedypipe train --stages 2 buffers.policy=lifo  # never\n```\n")
    assert "buffers.policy" in refusal(words)


@pytest.fixture
def own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of examples/, on the import path, as in the folder of each."""
    for folder in EXAMPLES:
        monkeypatch.syspath_prepend(folder)


def test_extending_shows_the_examples_and_no_other_code() -> None:
    blocks = FENCE.findall((ROOT / "docs" / "extending.md").read_text())
    shown = [block for language, block in blocks if language == "python"]
    assert EXAMPLES and sorted(shown) == sorted((folder / f"{folder.name}.py").read_text() for folder in EXAMPLES)


def test_the_examples_of_extending_train(own_code: None) -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    for words in commands(page):
        overrides = [word for word in words if re.match(r"[a-z]+\.[a-z_]+=", word)]
        plan = make_plan(load_config(str(ROOT / "configs" / "digits.yaml"), overrides), int(words[3]))
        block = plan.blueprint.build_block(0, torch.device("cpu"))
        before = [value.clone() for value in block.layer_state().values()]
        _learn(block)
        assert any(not torch.equal(*pair) for pair in zip(before, block.layer_state().values(), strict=True)), words


def _learn(block: Block) -> None:
    x, labels = torch.randn(8, *block.shapes.input), torch.arange(8) % 2
    block.forward(x, Batch(0, labels, {"image": x}))
    block.learn()


TRANSLATED = re.compile(r"\b(no longer|wanted|hand(s|ed)? (it )?on|foret(ell|old)|beside)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: page.name)
def test_pages_avoid_history_and_words_that_sound_translated(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if TRANSLATED.search(line)] == []


def first_cells(text: str) -> set[str]:
    """Names in the first cells of a page's tables; a row may be about several."""
    cells: list[str] = re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_method_has_a_line_in_the_readme_and_a_card() -> None:
    assert METHODS
    readme, cards = (ROOT / "README.md").read_text(), (ROOT / "docs" / "methods.md").read_text()
    assert sorted(METHODS.keys() - first_cells(readme)) == []
    assert sorted(METHODS.keys() - anchors(cards)) == []
    assert sorted(HEADS.keys() - first_cells(cards)) == []
