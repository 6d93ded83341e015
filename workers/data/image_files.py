"""Image files: what may be read from them, and how it becomes upright grey or RGB pixels of 8 bits."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from greedypipe.workers.output import printable

FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
"""Pillow's decoders that a file may choose by its content. Others are never asked: EPS would start Ghostscript."""
MOST_PIXELS: Final = 89_478_485
"""Above this a small file may be made to fill the memory; Pillow warns above it."""
GREY: Final = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"})
COLOUR: Final = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})

_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ENDINGS: Final = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_LIES_ON_ITS_SIDE: Final = frozenset({5, 6, 7, 8})


class DamagedImage(ValueError):
    """A file is no image that can be read; the text is one line for its owner, who needs no traceback."""


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded: size in pixels once upright, and whether it has colours."""

    height: int
    width: int
    is_grey: bool


@contextlib.contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """The image of a file, which is decoded when its pixels are first asked for.

    Raises:
        DamagedImage: One line, with the path: the file is no image of `FORMATS`, is damaged, or is too large; also for
            whatever the body raises while it decodes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata; what spoils pixels is an error
            with Image.open(path, formats=FORMATS) as image:
                _check(image)
                yield image
    # Decoders raise nearly anything on damaged bytes: struct.error, KeyError, OverflowError, MemoryError, ...
    except Exception as error:
        raise DamagedImage(f"cannot read the image {printable(path)}: {_reason(error)}") from error


def read_header(path: str) -> Header:
    """Reads a header and, where the file does not end as its format says, decodes the image to see whether it is whole.

    Raises:
        ValueError: See `opened`.
    """
    with opened(path) as image:
        width, height = image.size
        if _orientation(image) in _LIES_ON_ITS_SIDE:
            width, height = height, width
        if not _ends_well(path, image.format):
            image.load()
        return Header(height, width, image.mode in GREY)


def decode(path: str, channels: int) -> Image.Image:
    """Reads one image upright in its own size: mode L for one channel, RGB for three.

    Raises:
        ValueError: See `opened`.
    """
    with opened(path) as image:
        # Pillow itself turns some formats while it decodes, and reads the tag of others only then.
        image.load()
        turn = _TURNS.get(_orientation(image))
        plain = as_grey_or_rgb(image)
        plain = plain if turn is None else plain.transpose(turn)
        return plain.convert("L" if channels == 1 else "RGB")


def as_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Pixels of any known kind as mode L or RGB: 16 bits are scaled to 8, transparency shows white.

    Raises:
        ValueError: The kind of pixels has no known range.
    """
    _check_mode(image)
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    grey = image.mode in GREY
    if image.has_transparency_data:
        drawing = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing)
    return image.convert("L" if grey else "RGB")


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Shrinks or enlarges an image until it just covers height x width, then cuts out the centre."""
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.resize(covering, Image.Resampling.BILINEAR)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))


def channels_first(image: Image.Image) -> np.ndarray:
    """Pixels of a grey or RGB image as uint8 [C, H, W] (a view, not contiguous)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"got {image.width} x {image.height} pixels, allowed: {MOST_PIXELS:,} in all")
    _check_mode(image)


def _check_mode(image: Image.Image) -> None:
    # Mode I is 32 bits, but for these formats, where it holds 16.
    is_known = image.mode in GREY | COLOUR and (image.mode != "I" or image.format in ("PPM", "PNG"))
    if not is_known:
        kind = {"F": "floating-point", "I": "32-bit"}.get(image.mode, "unknown")
        raise ValueError(f"got {kind} pixels (mode {image.mode}), allowed: 8 or 16 bits, grey, RGB, CMYK or palette")


def _orientation(image: Image.Image) -> int:
    """The EXIF tag; 1 (upright) where there is none, or Pillow obeys it itself."""
    if image.format == "TIFF":
        return 1
    try:
        # Image's own method: that of PNG files would decode the pixels to look behind them.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # damaged metadata do not spoil the pixels
        return 1


def _ends_well(path: str, kind: str | None) -> bool:
    """Whether a file ends as its format says; True for formats that do not say."""
    ending = _ENDINGS.get(kind or "", b"")
    with open(path, "rb") as file:
        file.seek(-len(ending), os.SEEK_END)
        return file.read() == ending


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image of the kinds {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more pixels than the {MOST_PIXELS:,} that are allowed"
    return printable(str(error).partition("\n")[0]) or type(error).__name__
