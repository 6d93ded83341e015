"""Paths that users write: `~` means their home wherever a path may stand."""

import os
from typing import Annotated

from pydantic import AfterValidator

UserPath = Annotated[str, AfterValidator(os.path.expanduser)]
"""Text of a section that is a path. `~nobody/x`, of a user who does not exist, stays as it is."""
