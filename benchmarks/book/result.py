"""One section of docs/results.md, made from one file of benchmarks/results."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.book.markdown import machine, paragraphs, versions

FOLDER = Path(__file__).resolve().parents[1] / "results"
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a page says about one measurement. Every number comes from the answer; prose stands next to it in `text`.

    Attributes:
        stem: benchmarks/results/STEM.json holds the answer; STEM.png, where there is one, is its plot.
        title: Heading of the section.
        repeats: How often it was measured and what is shown, e.g. "n = 5 interleaved repeats; medians and ranges".
        text: Tables and prose.
        headline: One line for README.md, where it has one: what was asked, and what was found.
        command: What measures it again; None: the answer says so itself.
        shows_plot: Whether the plot is part of the page, not only linked.
    """

    stem: str
    title: str
    repeats: Callable[[Answer], str]
    text: Callable[[Answer], str]
    headline: Callable[[Answer], tuple[str, str]] | None = None
    command: Callable[[Answer], str] | None = None
    shows_plot: bool = False

    def read(self) -> Answer:
        """The answer, as its benchmark wrote it."""
        return json.loads((FOLDER / f"{self.stem}.json").read_text(encoding="utf-8"))

    @property
    def anchor(self) -> str:
        """The section's place in docs/results.md."""
        return anchor(self.title)

    def section(self) -> str:
        """Heading, text, and how to measure it again."""
        answer = self.read()
        command = self.command(answer) if self.command else answer["command"]
        links, plot = [f"[data](../benchmarks/results/{self.stem}.json)"], []
        if (FOLDER / f"{self.stem}.png").exists():
            where = f"(../benchmarks/results/{self.stem}.png)"
            links.append(f"[plot]{where}")
            plot = [f"![{self.title}]{where}"] if self.shows_plot else []
        measured = f"{machine(answer)}; {versions(answer)}; {self.repeats(answer)}. {', '.join(links)}"
        return "\n\n".join([f"## {self.title}", paragraphs(self.text(answer)), *plot, f"```\n{command}\n```", measured])


def anchor(title: str) -> str:
    """The fragment that GitHub gives a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
