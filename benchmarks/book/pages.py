"""Every page that `make book` writes, and what it should hold."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.book.configuration import configuration_page
from benchmarks.book.figure import DARK, LIGHT, figure
from benchmarks.book.regions import REGIONS
from benchmarks.book.results import RESULTS

ROOT = Path(__file__).resolve().parents[2]
REGION = re.compile(r"(<!-- book: ([\w .]+) -->)(.*?)(<!-- /book -->)", re.DOTALL)


def results_page() -> str:
    """docs/results.md: contents, then a section per result."""
    contents = "\n".join(f"* [{result.title}](#{result.anchor})" for result in RESULTS)
    return f"""<!-- Written by `make book` from benchmarks/results/*.json: do not edit. -->
# Results

Every number on this page comes from a file in `benchmarks/results/`, and each section ends with the command that measures
it again. Ranges are those of the repeats; missed targets are marked. The machines are small and shared: read times as
approximate, and accuracies with their number of seeds.

{contents}

{chr(10).join(f"{result.section()}{chr(10)}" for result in RESULTS)}"""


WHOLE: Mapping[str, Callable[[], str]] = {
    "docs/results.md": results_page,
    "docs/configuration.md": configuration_page,
    "docs/pipeline-light.svg": lambda: figure(LIGHT),
    "docs/pipeline-dark.svg": lambda: figure(DARK),
}
"""Pages that are generated whole."""


def pages(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every generated page with its text; pages written by hand get their marked regions replaced.

    A region is `<!-- book: NAME -->...<!-- /book -->`; NAME is one of `regions.REGIONS`.
    """
    for name, text in WHOLE.items():
        yield root / name, text()
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        if path.relative_to(root).as_posix() not in WHOLE:
            yield path, filled(path.read_text(encoding="utf-8"))


def filled(text: str) -> str:
    """A page with its regions replaced.

    Raises:
        ValueError: A region has an unknown name.
    """

    def fill(match: re.Match[str]) -> str:
        begin, name, before, end = match.groups()
        if name not in REGIONS:
            raise ValueError(f"book: {name}: unknown region, allowed: {', '.join(REGIONS)}")
        around = "\n" if before.startswith("\n") else ""
        return f"{begin}{around}{REGIONS[name]()}{around}{end}"

    return REGION.sub(fill, text)
