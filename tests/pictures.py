"""Image folders as people bring them: pictures of three classes in every kind of file."""

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("bottom", "left", "top")
"""Where a picture is bright: whoever turns one wrongly gets another class."""


def pattern(name: str, seed: int, size: int = 16) -> np.ndarray:
    """Pixels uint8 [size, size]: bright where the class says, dark elsewhere, and noise."""
    half = size // 2
    pixels = np.random.default_rng(seed).integers(0, 60, (size, size)).astype(np.uint8)
    where = {"bottom": np.s_[half:], "top": np.s_[:half], "left": np.s_[:, :half]}[name]
    pixels[where] += 160
    return pixels


def _mode(mode: str) -> Callable[[np.ndarray, Path], None]:
    def write(pixels: np.ndarray, path: Path) -> None:
        Image.fromarray(pixels).convert("RGB").convert(mode).save(path)

    return write


def _transparent(pixels: np.ndarray, path: Path) -> None:
    """Bright is what shows through; below the transparency lies black."""
    rgba = np.zeros((*pixels.shape, 4), np.uint8)
    rgba[..., :3] = np.where(pixels < 128, pixels, 0)[..., None]
    rgba[..., 3] = np.where(pixels < 128, 255, 0)
    Image.fromarray(rgba).save(path)


def _turned(pixels: np.ndarray, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def _deep(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels.astype(np.uint16) << 8).save(path)


KINDS: dict[str, tuple[str, Callable[[np.ndarray, Path], None]]] = {
    "rgb": ("png", _mode("RGB")),
    "grey": ("jpg", _mode("L")),
    "bilevel": ("png", _mode("1")),
    "cmyk": ("jpg", _mode("CMYK")),
    "palette": ("png", _mode("P")),
    "transparent": ("png", _transparent),
    "turned": ("jpg", _turned),
    "turned tiff": ("tiff", _turned),
    "deep": ("png", _deep),
    "deep tiff": ("tif", _deep),
}
"""Kinds of files by name: extension, and what writes one."""


def write_part(folder: Path, classes: Sequence[str], copies: int, kinds: Sequence[str] = tuple(KINDS)) -> None:
    """Class folders with so many pictures of every kind; no two parts have the same noise."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for kind in kinds:
            extension, write = KINDS[kind]
            for copy in range(copies):
                seed = zlib.crc32(f"{folder.name} {name} {kind} {copy}".encode())
                write(pattern(name, seed), folder / name / f"{kind} {copy}.{extension}")


def write_colours(
    root: Path, colours: dict[str, tuple[int, int, int]], train: int = 8, test: int = 4, size: int = 8
) -> Path:
    """train/ and test/ of plain colours, a little brighter from picture to picture; returns `root`."""
    for part, count in (("train", train), ("test", test)):
        for name, colour in colours.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                shade = tuple(level + number % 5 for level in colour)
                Image.new("RGB", (size, size), shade).save(root / part / name / f"i{number:02}.png")
    return root


def write_png_header(path: Path, width: int, height: int) -> None:
    """A PNG file of some bytes that announces any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
