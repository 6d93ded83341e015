"""Writes a run's network as one plain state dict under the ordinary network's names, for torch alone to load.

    greedypipe export RUN --out model.safetensors|model.pt

RUN is the folder of a checkpoint, or of a run, whose final state is exported, or else its newest complete checkpoint. The
auxiliary heads go into a second file, model.heads.safetensors or model.heads.pt.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

import torch
from safetensors.torch import save_file
from torch import Tensor

from greedypipe.launch.checkpoints.trained_network import find_checkpoint, heads_of, layers_of
from greedypipe.workers.block_files import load_blocks
from greedypipe.workers.telemetry.phrases import shown

WRITERS: Mapping[str, Callable[[dict[str, Tensor], Path], None]] = {".safetensors": save_file, ".pt": torch.save}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run or of a checkpoint, e.g. runs/vgg8b-digits-1")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .safetensors or .pt")
    arguments = parser.parse_intermixed_args()
    if arguments.out.suffix not in WRITERS:
        parser.error(f"--out: got {arguments.out}, allowed: a name that ends with {' or '.join(WRITERS)}")
    try:
        states = load_blocks(find_checkpoint(arguments.run))
    except ValueError as error:
        sys.exit(f"greedypipe: {shown(error)}")
    _write(arguments.out, layers_of(states))
    if heads := heads_of(states):
        _write(arguments.out.with_suffix(f".heads{arguments.out.suffix}"), heads)


def _write(path: Path, state: dict[str, Tensor]) -> None:
    # Exported tensors have the default memory layout, whatever layout they were trained in.
    plain = {name: value.contiguous() for name, value in state.items()}
    WRITERS[path.suffix](plain, path)
    size_mb = sum(value.numel() * value.element_size() for value in plain.values()) / 1e6
    print(f"{path}: {len(plain)} tensors, {size_mb:.1f} MB")


if __name__ == "__main__":
    main()
