"""Characters drawn with this machine's fonts: as many classes as are wanted, tested on fonts that training has not seen."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from pydantic import Field

from greedypipe.pipeline.randomness import derive_seed
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.fonts import Font, find_fonts, held_out
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.interface import DataSet
from greedypipe.workers.user_path import UserPath

MEAN, STD = (0.08,), (0.24,)
MOST_DEGREES, LEAST_SHARE, SHARES = 12, 0.6, 4
"""A character is turned by up to so many degrees, and its font has a size of 0.6, 0.667, 0.733 or 0.8 of the image's."""
TEST_SHARE: Final = 4
"""Test images per class are this part of the training images, at least 1."""


class GlyphsConfig(DataConfig, frozen=True):
    """Characters drawn with the fonts of this machine, of which every fourth is held out; needs no network."""

    name: Literal["glyphs"] = "glyphs"
    classes: int = Field(100, ge=10, le=3000, description="number of characters; those that most fonts have come first")
    class_samples: int = Field(40, ge=1, description="training images of each; a quarter as many test images")
    image_size: int = Field(32, ge=8, le=256, description="height and width in pixels")
    root: UserPath = Field("", description="folder of the fonts (.ttf, .otf), with its subfolders; empty: the system's")


class Glyphs(DataSet):
    """Grey images of characters, slightly turned, scaled and moved.

    Classes are letters, digits, punctuation and symbols that a training font and a test font have. Characters that look
    alike, such as the Latin A and the Greek Alpha, are one class: the one that comes first. Images depend on the fonts'
    files, on the keys, and on the version of FreeType, which are the set's identity, and on no seed of the run.
    """

    Config = GlyphsConfig

    def __init__(self, config: GlyphsConfig) -> None:
        super().__init__(config)
        self._glyphs = config

    def check_presence(self) -> None:
        """Looks for fonts, and for characters that they have."""
        assert self._characters

    def describe_whole(self) -> DataInfo:
        """See `DataSet.describe_whole`; draws every candidate once, to find those that look alike."""
        keys, size = self._glyphs, self._glyphs.image_size
        names = tuple(f"{character} U+{ord(character):04X}" for character in self._characters)
        return DataInfo(
            (1, size, size),
            names,
            keys.classes * keys.class_samples,
            keys.classes * self._test_samples,
            MEAN,
            STD,
            fingerprint=self._fingerprint,
            notes=(f"{len(self._fonts[0])} fonts to train on, {len(self._fonts[1])} others to test on",),
        )

    def load(self) -> tuple[InMemoryImages, InMemoryImages]:
        """See `DataSet.load`; draws all images, one or two thousand a second."""
        train, test = self._fonts
        return self._part("train", train, self._glyphs.class_samples), self._part("test", test, self._test_samples)

    @property
    def _test_samples(self) -> int:
        return max(1, self._glyphs.class_samples // TEST_SHARE)

    @cached_property
    def _fonts(self) -> tuple[list[Font], list[Font]]:
        return held_out(find_fonts(self._glyphs.root))

    @cached_property
    def _characters(self) -> str:
        """The classes' characters."""
        wanted = self._glyphs.classes
        found = _distinct(*self._fonts, wanted)
        if len(found) < wanted:
            raise ValueError(
                f"data.classes: got {wanted}, allowed: 10 to {len(found)}, the different characters of these fonts; more "
                "fonts have more: `apt-get install fonts-noto-core fonts-noto-cjk`"
            )
        return found

    @property
    def _fingerprint(self) -> str:
        keys = (self._characters, self._glyphs.class_samples, features.version("freetype2"))
        files = [(font.path.name, font.size_bytes) for part in self._fonts for font in part]
        return hashlib.sha256(repr((keys, files)).encode()).hexdigest()

    def _part(self, part: str, fonts: Sequence[Font], samples: int) -> InMemoryImages:
        size = self._glyphs.image_size
        images = np.empty((len(self._characters) * samples, 1, size, size), np.uint8)
        for label, character in enumerate(self._characters):
            having = [font.path for font in fonts if ord(character) in font.characters]
            random = np.random.RandomState(derive_seed("glyphs", part, ord(character)) % 2**32)
            for number in range(samples):
                font = having[random.randint(len(having))]
                images[label * samples + number, 0] = np.asarray(_drawn(character, font, size, random))
        labels = torch.arange(len(self._characters)).repeat_interleave(samples)
        return InMemoryImages(torch.from_numpy(images), labels)


def _distinct(train: Sequence[Font], test: Sequence[Font], most: int) -> str:
    """Characters that both parts have and that look different, those that most fonts have first."""
    counts = Counter(point for font in (*train, *test) for point in font.characters)
    shared = frozenset[int]().union(*(font.characters for font in train)) & frozenset[int]().union(
        *(font.characters for font in test)
    )
    drawable = (point for point in shared if unicodedata.category(chr(point))[0] in "LNPS")
    seen, found = set(), ""
    for point in sorted(drawable, key=lambda point: (-counts[point], unicodedata.category(chr(point))[0] in "PS", point)):
        path = next(font.path for font in train if point in font.characters)
        looks = _typeset(chr(point), path, 24, 32)
        if looks.getbbox() and looks.tobytes() not in seen:
            seen.add(looks.tobytes())
            found += chr(point)
        if len(found) == most:
            break
    return found


def _drawn(character: str, path: Path, size: int, random: np.random.RandomState) -> Image.Image:
    """A character, white on black, of random size, angle and place."""
    share = LEAST_SHARE + random.randint(SHARES) * 0.2 / (SHARES - 1)
    degrees, right, down = (2 * random.rand(3) - 1) * (MOST_DEGREES, size / 10, size / 10)
    straight = _typeset(character, path, max(6, round(share * size)), size)
    return straight.rotate(degrees, Image.Resampling.BILINEAR, translate=(round(right), round(down)))


def _typeset(character: str, path: Path, points: int, size: int) -> Image.Image:
    """A character in the middle of a square image, by the box of its ink."""
    font, image = _font(path, points), Image.new("L", (size, size))
    left, top, right, bottom = font.getbbox(character)
    ImageDraw.Draw(image).text(((size - left - right) / 2, (size - top - bottom) / 2), character, 255, font)
    return image


@lru_cache(1024)
def _font(path: Path, points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, points, layout_engine=ImageFont.Layout.BASIC)
