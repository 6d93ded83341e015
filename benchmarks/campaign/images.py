"""The handwritten digits as image files, for trials whose stage 0 reads files."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path) -> Path:
    """Writes scikit-learn's digits as PNG files, train/CLASS/NUMBER.png and test/CLASS/NUMBER.png; returns the folder."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        part = folder / ("test" if number % 5 == 4 else "train") / str(label)
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(part / f"{number}.png")
    return folder
