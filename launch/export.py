"""Writes a run's network as one plain state dict under the ordinary network's names, for torch alone to load."""

import argparse
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from workers.checkpoint import load_blocks  # noqa: E402


def network_state(run: Path) -> dict[str, Tensor]:
    """The layers and the classifier of a finished run, in the network's order.

    Raises:
        ValueError: The run has no complete set of final parameters.
    """
    return {name: value for state in load_blocks(run / "checkpoints" / "final") for name, value in state["layers"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder, e.g. runs/vgg8b-digits-1")
    parser.add_argument("--out", type=Path, required=True, help="file to write, e.g. model.pt")
    arguments = parser.parse_args()
    try:
        state = network_state(arguments.run)
    except ValueError as error:
        sys.exit(f"greedypipe: {error}")
    torch.save(state, arguments.out)
    size_mb = sum(value.numel() * value.element_size() for value in state.values()) / 1e6
    print(f"{arguments.out}: {len(state)} tensors, {size_mb:.1f} MB")


if __name__ == "__main__":
    main()
