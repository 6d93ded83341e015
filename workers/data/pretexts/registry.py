"""The table of pretext tasks."""

from collections.abc import Mapping
from typing import Final

from greedypipe.workers.data.pretexts.grey import Grey
from greedypipe.workers.data.pretexts.interface import NoPretext, Pretext
from greedypipe.workers.data.pretexts.mask import Mask
from greedypipe.workers.data.pretexts.rotation import Rotation

PRETEXTS: Final[Mapping[str, type[Pretext]]] = {"none": NoPretext, "rotation": Rotation, "grey": Grey, "mask": Mask}
