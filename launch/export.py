"""Writes a run's network for torch alone to load, with a JSON file that says what goes in and what comes out.

    greedypipe export RUN --out model.pt2|model.pt|model.safetensors

RUN is the folder of a checkpoint, or of a run, whose final state is exported, or else its newest complete checkpoint.

.pt2 holds the whole network as a program, which `torch.export.load` reads without any other code (examples/predict.py).
.pt and .safetensors hold one plain state dict under the ordinary network's names; the auxiliary heads are written next to
it, as model.heads.pt or model.heads.safetensors. model.json names the classes and says how images are prepared.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

import torch
from safetensors.torch import save
from torch import Tensor

from greedypipe.launch.checkpoints.manifest import Manifest, parse_manifest
from greedypipe.launch.checkpoints.trained_blocks import plain_network, plan_of, trained_blocks
from greedypipe.launch.checkpoints.trained_network import find_checkpoint, heads_of, layers_of
from greedypipe.launch.config.command_line import CommandLine, command, refuse, user_path
from greedypipe.workers.atomic import replacing, write_atomically
from greedypipe.workers.block_files import load_blocks
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.output import shown

PREPARATION = (
    "turn the image upright by its EXIF orientation",
    "put transparent images on white, and scale 16 bits to 8; one channel: grey, three: RGB",
    "shrink or enlarge it (bilinear) until it just covers height x width, and cut out the centre",
    "divide by full_scale, subtract mean and divide by std, per channel; float32 [N, channels, height, width]",
)

GREY = "put 0.299 red + 0.587 green + 0.114 blue in all three channels"


@command
def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("run", type=user_path, help="the folder of a run or of a checkpoint, e.g. runs/vgg8b-digits-1")
    parser.add_argument("--out", type=user_path, required=True, help="file to write: .pt2, .pt or .safetensors")
    arguments = parser.parse_intermixed_args()
    if arguments.out.suffix not in (PROGRAM, *WRITERS):
        parser.error(f"--out: got {arguments.out}, allowed: a name that ends with {', '.join((PROGRAM, *WRITERS))}")
    try:
        export(find_checkpoint(arguments.run), arguments.out)
    except (ValueError, OSError) as error:
        refuse(error)


def export(checkpoint: Path, out: Path) -> None:
    """Writes a checkpoint's network, and the JSON file next to it; says what it has written.

    Raises:
        ValueError: The checkpoint is damaged, or the network cannot be written as a program.
        OSError: The disk refuses.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    manifest = parse_manifest(checkpoint)
    if (codec := manifest.config.get("codec", {}).get("name", "none")) != "none" and out.suffix != PROGRAM:
        raise ValueError(f"--out: got {out}, allowed: .pt2 for a network with codec.name={codec}, which parameters lack")
    heads = None
    if out.suffix == PROGRAM:
        _write_program(checkpoint, out)
    else:
        states = load_blocks(checkpoint)
        _write_tensors(out, layers_of(states))
        if auxiliary := heads_of(states):
            heads = out.with_suffix(f".heads{out.suffix}")
            _write_tensors(heads, auxiliary)
    about = out.with_suffix(".json")
    write_atomically(about, json.dumps(_description(manifest, out, heads), indent=1, ensure_ascii=False) + "\n")
    print(shown(f"{about}: {'classes, and how images are prepared' if manifest.data else 'without classes'}"))


def _description(manifest: Manifest, out: Path, heads: Path | None) -> dict[str, Any]:
    """What model.json holds; without what a checkpoint does not know that is older than its description of the data."""
    description: dict[str, Any] = {
        "file": out.name,
        "heads": heads.name if heads else None,
        "model": manifest.config["model"],
        "trained_batches": manifest.batch_id,
        "accuracy": manifest.accuracy,
        "versions": manifest.versions,
    }
    if not (data := manifest.data):
        return description
    part = "validation" if data.validation_samples else "test"
    return description | {
        "data": manifest.config["data"]["name"],
        "classes": data.classes,
        "input_shape": data.input_shape,
        "mean": data.mean,
        "std": data.std,
        "full_scale": data.full_scale,
        "pretext": manifest.config["data"].get("pretext", "none"),
        "preparation": _preparation(data, manifest.config["data"].get("pretext", "none")),
        "train_samples": data.train_samples,
        "validation_samples": data.validation_samples,
        "test_samples": data.test_samples,
        "class_samples": data.class_samples,
        "fingerprint": data.fingerprint,
        "accuracy_on": part,
    }


def _preparation(data: DataInfo, pretext: str) -> tuple[str, ...]:
    if data.has_images and data.has_bytes:
        return (*PREPARATION[:-1], GREY, PREPARATION[-1]) if pretext == "grey" else PREPARATION
    shape = f"float32 [N, {', '.join(map(str, data.input_shape))}]"
    if data.mean == (0.0,) * len(data.mean) and data.std == (1.0,) * len(data.std):
        return (f"{shape} as it is",)
    return (f"divide by full_scale, subtract mean and divide by std, per channel; {shape}",)


def _write_program(checkpoint: Path, path: Path) -> None:
    plan = plan_of(checkpoint, ["training.compile=none", "training.precision=fp32", "placement.device=cpu"])
    network = plain_network(trained_blocks(plan, checkpoint)).to(memory_format=torch.contiguous_format)
    # Two images: torch.export takes a dimension of one as constant.
    images = torch.zeros(2, *plan.data.input_shape)
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    # Whatever the tracer raises on code that it cannot follow, which may be a user's own.
    except Exception as error:
        cause = str(error).strip().partition("\n")[0]
        raise ValueError(f"--out: torch.export cannot follow the network ({cause}); use .pt or .safetensors") from error
    with replacing(path) as file:
        torch.export.save(program, file)
    print(shown(f"{path}: the network as a program, {path.stat().st_size / 1e6:.1f} MB"))


def _write_tensors(path: Path, state: dict[str, Tensor]) -> None:
    # Exported tensors have the default memory layout, whatever layout they were trained in.
    plain = {name: value.contiguous() for name, value in state.items()}
    with replacing(path) as file:
        WRITERS[path.suffix](plain, file)
    size_mb = sum(value.numel() * value.element_size() for value in plain.values()) / 1e6
    print(shown(f"{path}: {len(plain)} tensors, {size_mb:.1f} MB"))


def _write_safetensors(state: dict[str, Tensor], file: Any) -> None:
    file.write(save(state))


PROGRAM = ".pt2"
WRITERS: Mapping[str, Callable[[dict[str, Tensor], Any], None]] = {".pt": torch.save, ".safetensors": _write_safetensors}


if __name__ == "__main__":
    main()
