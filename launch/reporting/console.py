"""The console of every command: what is printed there is shown, never obeyed."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from greedypipe.workers.output import shown


class PlainConsole(Console):
    """Takes no text for markup, and spells control characters out: names of layers, classes and files may hold anything."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """As rich does, of a text that is safe to show; every cell of a table comes through here."""
        return super().render_str(shown(text), **settings)


def standard_output(width: int) -> PlainConsole:
    """The console of standard output: `width` columns wide where it is no terminal."""
    return PlainConsole(file=sys.stdout, width=None if sys.stdout.isatty() else width)
