"""A data set of your own, named in config.yaml; docs/extending.md describes what the function may return."""

import numpy as np

Part = tuple[np.ndarray, np.ndarray]


def stripes(samples: int = 2000, size: int = 16, noise: int = 96) -> tuple[Part, Part]:
    """Returns (train, test), each of them (images uint8 [N, 1, size, size], labels int64 [N]).

    The stripes of class 0 are horizontal, those of class 1 vertical, those of class 2 diagonal. The seed is fixed, since
    every process of a run calls this function, and all of them must get the same samples.
    """
    random = np.random.default_rng(0)
    row, column = np.indices((size, size))
    directions = np.stack([row, column, row + column])

    def draw(count: int) -> Part:
        labels = random.integers(0, 3, count)
        shift = random.integers(0, 4, (count, 1, 1))
        is_bright = (directions[labels] + shift) % 4 < 2
        images = is_bright * (255 - noise) + random.integers(0, noise, (count, size, size))
        return images.astype(np.uint8)[:, None], labels

    return draw(samples), draw(samples // 5)
