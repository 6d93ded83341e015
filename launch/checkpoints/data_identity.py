"""Whether the data of a run are still those that a checkpoint was trained on."""

from collections.abc import Callable, Iterator

from greedypipe.launch.config.errors import ConfigError
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.output import some


def check_same_data(saved: DataInfo | None, now: DataInfo, say: Callable[[str], None]) -> None:
    """Compares what a checkpoint was trained on with what its run would continue on.

    Args:
        saved: None: unknown, since the checkpoint is too old; nothing is compared.
        say: Is told where the files are others, but not their classes and numbers.

    Raises:
        ConfigError: Labels would mean something else, samples would look different, or an epoch would have other samples; a
            line for each difference.
    """
    if saved is None:
        return
    if lines := [*_classes(saved, now), *_pixels(saved, now), *_counts(saved, now)]:
        raise ConfigError(lines)
    if saved.fingerprint != now.fingerprint:
        say("data: the files have other names or sizes than those of the checkpoint, which has as many of every class")


def _classes(saved: DataInfo, now: DataInfo) -> Iterator[str]:
    if saved.classes == now.classes:
        return
    new = [name for name in now.classes if name not in saved.classes]
    gone = [name for name in saved.classes if name not in now.classes]
    changes = [f"{what} {some(names)}" for what, names in (("new:", new), ("missing:", gone)) if names]
    yield f"data: the classes are not those of the checkpoint: {'; '.join(changes) or 'their order has changed'}"


def _pixels(saved: DataInfo, now: DataInfo) -> Iterator[str]:
    for what in ("input_shape", "mean", "std", "full_scale"):
        got, allowed = getattr(now, what), getattr(saved, what)
        if got != allowed:
            yield f"data: {what} is {_words(got)}, the checkpoint has {_words(allowed)}"


def _counts(saved: DataInfo, now: DataInfo) -> Iterator[str]:
    for part in ("train", "validation", "test"):
        got, allowed = getattr(now, f"{part}_samples"), getattr(saved, f"{part}_samples")
        if got != allowed:
            yield f"data: got {got:,} {part} samples, the checkpoint has {allowed:,}: the data have changed"
    if saved.train_samples == now.train_samples and saved.classes == now.classes:
        for name, got, allowed in zip(now.classes, now.class_samples, saved.class_samples, strict=False):
            if got != allowed:
                yield f"data: class {some([name])} has {got:,} training samples, {allowed:,} in the checkpoint"


def _words(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
