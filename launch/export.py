"""Writes a run's network as one plain state dict under the ordinary network's names, for torch alone to load.

    python launch/export.py RUN --out model.safetensors|model.pt

RUN is the folder of a run, of which its end is taken or else its newest complete checkpoint, or of a checkpoint. The
auxiliary heads are written beside it, as model.heads.safetensors or model.heads.pt.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from launch.checkpoints import MANIFEST, checkpoints_of, newest_valid, read_manifest  # noqa: E402
from workers.checkpoint import FINAL, load_blocks  # noqa: E402

WRITERS: Mapping[str, Callable[[dict[str, Tensor], Path], None]] = {".safetensors": save_file, ".pt": torch.save}


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a user means by the folder of a run or of a checkpoint; its bytes are checked.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    chosen = next((folder for folder in (path, checkpoints_of(path) / FINAL) if (folder / MANIFEST).exists()), None)
    if chosen:
        read_manifest(chosen)
        return chosen
    found = newest_valid(path, lambda text: print(text, file=sys.stderr))
    if found is None:
        raise ValueError(f"{path}: got no complete checkpoint, allowed: the folder of a run or of a checkpoint")
    return found[0]


def network_state(path: Path) -> dict[str, Tensor]:
    """The layers and the classifier of a run or checkpoint, in the network's order.

    Raises:
        ValueError: See `find_checkpoint`.
    """
    return layers_of(load_blocks(find_checkpoint(path)))


def layers_of(states: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The ordinary network's state dict, of the states of all blocks."""
    return {name: value for state in states for name, value in state["layers"].items()}


def heads_of(states: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The auxiliary losses' and heads' parameters as blockN.NAME; the last block's head is the network's own classifier."""
    return {f"block{state['index']}.{name}": value for state in states[:-1] for name, value in state["loss"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run or of a checkpoint, e.g. runs/vgg8b-digits-1")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .safetensors or .pt")
    arguments = parser.parse_args()
    if arguments.out.suffix not in WRITERS:
        parser.error(f"--out: got {arguments.out}, allowed: a name that ends with {' or '.join(WRITERS)}")
    try:
        states = load_blocks(find_checkpoint(arguments.run))
    except ValueError as error:
        sys.exit(f"greedypipe: {error}")
    _write(arguments.out, layers_of(states))
    if heads := heads_of(states):
        _write(arguments.out.with_suffix(f".heads{arguments.out.suffix}"), heads)


def _write(path: Path, state: dict[str, Tensor]) -> None:
    # Files that others read hold tensors in the usual order, whatever order they were trained in.
    plain = {name: value.contiguous() for name, value in state.items()}
    WRITERS[path.suffix](plain, path)
    size_mb = sum(value.numel() * value.element_size() for value in plain.values()) / 1e6
    print(f"{path}: {len(plain)} tensors, {size_mb:.1f} MB")


if __name__ == "__main__":
    main()
