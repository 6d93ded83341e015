"""Names what images show, with torch, numpy and Pillow alone: nothing of greedypipe is imported.

    greedypipe export RUN --out model.pt2
    python examples/predict.py model.json IMAGE ...

Prints a line per image: its path, the class, and the network's confidence.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps


def prepare(path: str, about: dict) -> torch.Tensor:
    """One image as the network was trained on it: float32 [1, channels, height, width]."""
    channels, height, width = about["input_shape"]
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        drawing = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing)
    if about.get("pretext") == "grey":
        image = image.convert("L")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        scale = max(height / image.height, width / image.width)
        covering = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
        image = image.resize(covering, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(image, dtype=np.float32).reshape(height, width, channels)).permute(2, 0, 1)
    mean, std = (torch.tensor(about[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return ((pixels / about["full_scale"] - mean) / std)[None]


def main() -> None:
    description, *paths = sys.argv[1:]
    about = json.loads(Path(description).read_text(encoding="utf-8"))
    network = torch.export.load(Path(description).with_name(about["file"])).module()
    for path in paths:
        with torch.no_grad():
            confidence, label = network(prepare(path, about)).softmax(1).max(1)
        print(f"{path}\t{about['classes'][int(label)]}\t{float(confidence):.3f}")


if __name__ == "__main__":
    main()
