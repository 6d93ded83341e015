"""The fonts of this machine: where they lie, and which characters each of them has."""

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from greedypipe.workers.output import printable

SUFFIXES: Final = (".ttf", ".otf")
PLACES: Final = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts",),
}
UNIX_PLACES: Final = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
LEAST: Final = frozenset(map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))
"""A font without these is one of symbols, whose characters need not look like their code points."""


@dataclass(frozen=True)
class Font:
    """A font file: its size in bytes and the code points that it has."""

    path: Path
    size_bytes: int
    characters: frozenset[int]


def find_fonts(root: str) -> list[Font]:
    """The fonts below a folder, or below this system's folders of fonts where `root` is empty; sorted by file name.

    Of files of one name the first counts. Files that are no TrueType or OpenType font with Latin letters are left out.

    Raises:
        ValueError: One line: there are fewer than two.
    """
    places = [root] if root else [os.path.expanduser(place) for place in PLACES.get(sys.platform, UNIX_PLACES)]
    paths: dict[str, Path] = {}
    for place in places:
        for path in sorted(_files(Path(place))):
            paths.setdefault(path.name, path)
    found = [font for _, path in sorted(paths.items()) if (font := _read(path)) is not None]
    if len(found) < 2:
        looked = " ".join(map(printable, places))
        raise ValueError(
            f"data.name: got glyphs, which needs two fonts or more (.ttf, .otf), found {len(found)} in {looked}: "
            "`apt-get install fonts-dejavu`, or set data.root"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names if name.lower().endswith(SUFFIXES))


def _read(path: Path) -> Font | None:
    try:
        content = path.read_bytes()
        characters = _characters(content)
    except (OSError, struct.error, IndexError):
        return None
    return Font(path, len(content), characters) if characters >= LEAST else None


def _characters(content: bytes) -> frozenset[int]:
    """The code points of a font's Unicode table, `cmap`, in format 4 or 12 (OpenType specification)."""
    (tables,) = struct.unpack_from(">H", content, 4)
    records = (struct.unpack_from(">4sIII", content, 12 + 16 * number) for number in range(tables))
    start = next((offset for tag, _, offset, _ in records if tag == b"cmap"), None)
    if start is None:
        return frozenset()
    (count,) = struct.unpack_from(">H", content, start + 2)
    found: set[int] = set()
    for number in range(count):
        platform, encoding, offset = struct.unpack_from(">HHI", content, start + 4 + 8 * number)
        if platform == 0 or (platform == 3 and encoding in (1, 10)):
            found |= _code_points(content, start + offset)
    return frozenset(found)


def _code_points(content: bytes, at: int) -> set[int]:
    (form,) = struct.unpack_from(">H", content, at)
    if form == 12:
        (groups,) = struct.unpack_from(">I", content, at + 12)
        spans = (struct.unpack_from(">III", content, at + 16 + 12 * number) for number in range(groups))
        return {point for first, last, _ in spans if last <= sys.maxunicode for point in range(first, last + 1)}
    if form != 4:
        return set()
    (doubled,) = struct.unpack_from(">H", content, at + 6)
    segments = doubled // 2
    ends = struct.unpack_from(f">{segments}H", content, at + 14)
    starts = struct.unpack_from(f">{segments}H", content, at + 16 + doubled)
    deltas = struct.unpack_from(f">{segments}H", content, at + 16 + 2 * doubled)
    offsets_at = at + 16 + 3 * doubled
    found = set()
    for segment, (first, last) in enumerate(zip(starts, ends, strict=True)):
        found |= set(_mapped(content, (first, last), deltas[segment], offsets_at + 2 * segment))
    return found - {0xFFFF}


def _mapped(content: bytes, span: tuple[int, int], delta: int, offset_at: int) -> Iterator[int]:
    """The code points of a segment of format 4 that have a glyph: number 0 is that of missing characters."""
    (offset,) = struct.unpack_from(">H", content, offset_at)
    first, last = span
    for point in range(first, last + 1):
        glyph = point if not offset else struct.unpack_from(">H", content, offset_at + offset + 2 * (point - first))[0]
        if (glyph or not offset) and (glyph + delta) & 0xFFFF:
            yield point


def held_out(fonts: Sequence[Font]) -> tuple[list[Font], list[Font]]:
    """Fonts to train on and fonts to test on: every fourth by name, the first of all included, is held out."""
    return [font for number, font in enumerate(fonts) if number % 4], list(fonts[::4])
