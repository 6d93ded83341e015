"""The one shape of all samples of an image folder, from what the headers of all its images say."""

from collections import Counter
from collections.abc import Iterable, Iterator

from greedypipe.workers.data.folder_listing import FolderSplit
from greedypipe.workers.data.image_files import Header, read_header
from greedypipe.workers.output import printable

Shape = tuple[int, int, int]
"""Channels, height, width."""
MOST_NAMED = 3
USUAL_SIZES = (224, 128, 96, 64, 32)


class _Headers:
    """What the headers of all images say together."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.colours: Counter[bool] = Counter()
        self.sizes: dict[tuple[int, int], str] = {}
        self.refusals: list[str] = []
        for path in paths:
            try:
                self._add(read_header(path), path)
            except ValueError as error:
                self.refusals.append(str(error))

    def _add(self, header: Header, path: str) -> None:
        self.colours[not header.is_grey] += 1
        self.sizes.setdefault((header.height, header.width), path)

    def refuse_damaged(self) -> None:
        """Raises ValueError where there are any, naming the first of them."""
        if self.refusals:
            more = len(self.refusals) - MOST_NAMED
            raise ValueError("; ".join(self.refusals[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else ""))

    def channels(self) -> int:
        """One where no image has colours."""
        return 3 if self.colours[True] else 1

    def size(self) -> tuple[int, int]:
        """Height and width.

        Raises:
            ValueError: They differ.
        """
        (height, width), *others = self.sizes
        if others:
            sizes = " and ".join(f"{w} x {h} ({printable(self.sizes[h, w])})" for h, w in ((height, width), others[0]))
            middle = sorted(min(size) for size in self.sizes)[len(self.sizes) // 2]
            usual = next((size for size in USUAL_SIZES if size <= middle), middle)
            raise ValueError(
                f"data.image_size: got 0, which keeps the size of the images, but they differ: {sizes}; allowed: a height "
                f"and width for all, e.g. data.image_size={usual}"
            )
        return height, width

    def notes(self, channels: int) -> Iterator[str]:
        """What a user should know of it."""
        differing, total = self.colours[channels == 1], self.colours.total()
        if differing:
            kinds = "have colours and are read as grey" if channels == 1 else "are grey and are read as colours"
            yield f"{differing:,} of {total:,} images {kinds}"


def sample_shape(parts: Iterable[FolderSplit], channels: int, image_size: int) -> tuple[Shape, tuple[str, ...]]:
    """The shape of every sample, and what a user should know of it, in lines. Opens every image, unless both numbers are
    given; decodes none.

    Args:
        channels: 1 or 3; 0: 1 where no image has colours.
        image_size: Height and width; 0: that of the images.

    Raises:
        ValueError: One line: an image cannot be read, or they differ in size and `image_size` is 0.
    """
    if channels and image_size:
        return (channels, image_size, image_size), ()
    headers = _Headers(part.path(index) for part in parts for index in range(len(part)))
    headers.refuse_damaged()
    channels = channels or headers.channels()
    height, width = (image_size, image_size) if image_size else headers.size()
    return (channels, height, width), tuple(headers.notes(channels))
