"""What methods want of network and data, beyond their names."""

from collections.abc import Mapping

RESIDUAL = ("model.name=resnet20", "model.width=0.5")
COLOURED = ("data.name=synthetic", "data.shape=[3,8,8]", "data.samples=140")
TWO_VIEWS = ("data.views=2", "data.augment=crop")

WANTED: Mapping[str, tuple[str, ...]] = {
    "trgl": RESIDUAL,
    "trgl_uzawa": RESIDUAL,
    "simclr": TWO_VIEWS,
    "greedy_infomax": (*RESIDUAL, *COLOURED, "model.patches=4"),
    "rotation": ("data.pretext=rotation",),
    "colourisation": (*COLOURED, "data.pretext=grey"),
    "inpainting": ("data.pretext=mask",),
}
"""By the names of the methods."""
