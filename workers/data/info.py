"""What a data set is: shape, classes, sizes and normalisation, as far as they are known before it is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from greedypipe.workers.output import some


@dataclass(frozen=True)
class DataInfo:
    """What a data set is: a run is trained on it, and resumed, evaluated and exported with it.

    Attributes:
        input_shape: Of a sample: channels, height, width of an image; channels, length of a signal; features of a vector.
        classes: Names; a label is a position in them.
        train_samples: Those that are trained on, without what `data.calibration_samples` and `data.validation` keep back.
        mean: Per channel (of a vector: one number), of values divided by `full_scale`; so is `std`.
        full_scale: 255: pixels are bytes; 1: they are floating-point numbers.
        validation_samples: On which a run is evaluated; 0: it is evaluated on the test part.
        class_samples: Training samples of every class, those that are kept back included; () where they are not known before
            the set is loaded.
        fingerprint: Of samples and labels in their order, as far as they are known before they are read; empty where the
            set is always the same.
        notes: What a user should know of the set, in lines; says nothing about what it is.
    """

    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    train_samples: int
    test_samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    full_scale: float = 255.0
    validation_samples: int = 0
    class_samples: tuple[int, ...] = ()
    fingerprint: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def has_bytes(self) -> bool:
        """Whether samples are stored as bytes, not as floating-point numbers."""
        return self.full_scale == 255

    @property
    def has_images(self) -> bool:
        """Whether samples are images, not signals or vectors."""
        return len(self.input_shape) == 3

    @property
    def evaluated_samples(self) -> int:
        """Samples of one evaluation pass of a run: of the validation part where there is one, else of the test part."""
        return self.validation_samples or self.test_samples


def numbered(classes: int) -> tuple[str, ...]:
    """The names of classes that have no other: their numbers."""
    return tuple(map(str, range(classes)))


def label_map(classes: Sequence[str], known: Sequence[str]) -> Tensor:
    """For each of `classes`, its position in `known`: int64 [classes].

    Raises:
        ValueError: One of them is not known.
    """
    if unknown := [name for name in classes if name not in known]:
        raise ValueError(f"data: got the classes {some(unknown)}, which the network does not know; it knows {some(known)}")
    positions = {name: position for position, name in enumerate(known)}
    return torch.tensor([positions[name] for name in classes])
