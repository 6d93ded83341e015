"""Images of Pillow: brought to one size, and to the order of dimensions that torch has."""

import numpy as np
from PIL import Image


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
