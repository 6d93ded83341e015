"""The table of data sets."""

from collections.abc import Mapping
from typing import Final

from greedypipe.pipeline.plugins import Family
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.sets.archives import Cifar10, Cifar100, FashionMnist, Mnist
from greedypipe.workers.data.sets.arrays import Arrays
from greedypipe.workers.data.sets.digits import Digits
from greedypipe.workers.data.sets.glyphs import Glyphs
from greedypipe.workers.data.sets.image_folder import ImageFolder
from greedypipe.workers.data.sets.interface import DataSet
from greedypipe.workers.data.sets.mnist_1d import Mnist1d
from greedypipe.workers.data.sets.own import OwnData
from greedypipe.workers.data.sets.synthetic import Synthetic

SETS: Final[Mapping[str, type[DataSet]]] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "fashion_mnist": FashionMnist,
    "mnist": Mnist,
    "mnist_1d": Mnist1d,
    "glyphs": Glyphs,
    "image_folder": ImageFolder,
    "arrays": Arrays,
    "synthetic": Synthetic,
}
DATA_FAMILY: Final = Family[DataConfig](
    "data set", {name: one.Config for name, one in SETS.items()}, default="digits", own=OwnData.Config
)
"""The section `data`."""


def open_data(config: DataConfig) -> DataSet:
    """Returns the data set that a configuration names; does no work yet."""
    return SETS.get(config.name, OwnData)(config)
